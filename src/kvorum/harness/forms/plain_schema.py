"""A JSON schema (2020-12, and what older drafts call the same) made plain: references put in place, ``allOf`` joined.

What cannot be made plain, or what a keyword means that nobody knows, is refused in a sentence that names the place: a
form filled under half a schema would be wrong without anybody noticing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import unquote

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject

MOST_PARTS = 20_000
"""Parts of a schema, with what its references bring in, above which it is refused."""
DEEPEST = 40
"""Levels of a schema below one another."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TOLD = _words(
    "title description default examples example $schema $id id $comment $anchor deprecated readOnly writeOnly format "
    "contentMediaType contentEncoding contentSchema discriminator xml externalDocs $defs definitions $vocabulary"
)
"""Keywords that tell something and forbid nothing; ``format`` is looked at where it is known."""
_INSIDE_ONE = _words(
    "items additionalProperties contains propertyNames not if then else additionalItems unevaluatedProperties "
    "unevaluatedItems"
)
_INSIDE_LIST = ("anyOf", "oneOf", "allOf", "prefixItems")
_INSIDE_MAPPING = ("properties", "patternProperties", "dependentSchemas")
_PLAIN = _words(
    "type enum const required minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern "
    "minItems maxItems uniqueItems minContains maxContains minProperties maxProperties dependentRequired dependencies"
)
_KNOWN = frozenset([*_TOLD, *_INSIDE_ONE, *_INSIDE_LIST, *_INSIDE_MAPPING, *_PLAIN, "$ref"])
_SMALLEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_LARGEST = ("minimum", "exclusiveMinimum", "minLength", "minItems")

Plain = dict[str, "Json"]
"""A schema without references."""


def plain_schema(schema: JsonObject) -> Plain:
    """``schema`` with every reference and ``allOf`` put in place.

    Raises:
        BadRequest: it refers to itself or outside, is too large or too deep, has a keyword that is not known, or joins
            what cannot be joined; the message names the place.
    """
    return _Reader(schema).read(schema, "the schema", ())


def told(schema: JsonObject, name: str) -> str:
    """A keyword's words on one line, such as ``description``; "" where there are none."""
    words = schema.get(name)
    return " ".join(words.split()) if isinstance(words, str) else ""


def rules_of(schema: JsonObject) -> Plain:
    """The keywords that forbid something; ``format`` among them."""
    return {name: rule for name, rule in schema.items() if name == "format" or not _tells(name)}


def without_words(schema: Json) -> Json:
    """A plain schema without what only tells something, all the way down, as a grammar takes it."""
    if not isinstance(schema, Mapping):
        return schema
    found: dict[str, Json] = {}
    for name, rule in rules_of(schema).items():
        if name in _INSIDE_MAPPING and isinstance(rule, Mapping):
            found[name] = {key: without_words(one) for key, one in rule.items()}
        elif name in _INSIDE_LIST and isinstance(rule, Sequence):
            found[name] = [without_words(one) for one in rule]
        else:
            found[name] = without_words(rule) if name in _INSIDE_ONE else rule
    return found


def _tells(name: str) -> bool:
    return name in _TOLD or name.startswith("x-")


@dataclass(slots=True)
class _Reader:
    root: JsonObject
    parts: int = 0

    def read(self, schema: Json, where: str, inside: tuple[str, ...], depth: int = 0) -> Plain:
        """One schema made plain. ``inside``: the references in which it stands."""
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise BadRequest(f"The schema has more than {MOST_PARTS:,} parts, references counted; make it smaller.")
        if depth > DEEPEST:
            raise BadRequest(f"The schema has more than {DEEPEST} levels below one another; make it flatter.")
        if schema is False:
            raise BadRequest(f"No value is allowed for {where}: its schema is false.")
        if schema is True:
            return {}
        if not isinstance(schema, Mapping):
            raise BadRequest(f"{schema_of(where)} is {schema!r:.40} and no object; see https://json-schema.org.")
        for name in schema:
            if name not in _KNOWN and not _tells(name):
                near = get_close_matches(name, _KNOWN, n=1)
                meant = f"did you mean {near[0]}" if near else f"if it only tells something, call it x-{name}"
                raise BadRequest(f"JSON schema has no keyword {name[:80]!r}, which {where} has; {meant}.")
        found: Plain = {name: rule for name, rule in schema.items() if name not in ("$ref", "allOf")}
        found = {name: self._inside(name, rule, where, inside, depth + 1) for name, rule in found.items()}
        if "$ref" in schema:
            target, chain = self._target(str(schema["$ref"]), where, inside)
            found = joined(self.read(target, where, chain, depth + 1), found, where)
        more = schema.get("allOf")
        for part in more if isinstance(more, Sequence) else ():
            found = joined(found, self.read(part, where, inside, depth + 1), where)
        return found

    def _inside(self, name: str, rule: Json, where: str, inside: tuple[str, ...], depth: int) -> Json:
        """What a keyword holds, made plain where it holds schemas."""
        if name in _INSIDE_MAPPING and isinstance(rule, Mapping):
            return {key: self.read(one, below(where, key), inside, depth) for key, one in rule.items()}
        if name in _INSIDE_LIST and isinstance(rule, Sequence):
            return [self.read(one, where, inside, depth) for one in rule]
        if name == "items" and isinstance(rule, Mapping):
            return self.read(rule, f"{where}[]", inside, depth)
        if name in _INSIDE_ONE and isinstance(rule, Mapping):
            return self.read(rule, where, inside, depth)
        return rule

    def _target(self, ref: str, where: str, inside: tuple[str, ...]) -> tuple[Json, tuple[str, ...]]:
        """What a reference points at, and the references in which it stands then."""
        if not ref.startswith("#"):
            raise BadRequest(f"{schema_of(where)} refers to {ref}, which lies outside of it; put it into $defs.")
        if ref in inside:
            raise BadRequest(f"{schema_of(where)} contains itself ({ref}), so its leaves have no end; unroll it.")
        found: Json = self.root
        for step in ref[1:].split("/")[1:] if ref != "#" else ():
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif (
                isinstance(found, Sequence)
                and not isinstance(found, str)
                and name.isdecimal()
                and int(name) < len(found)
            ):
                found = found[int(name)]
            else:
                raise BadRequest(f"{schema_of(where)} refers to {ref}, and there is nothing.")
        if ref != "#" and not ref.startswith("#/"):
            raise BadRequest(f"{schema_of(where)} refers to the anchor {ref}; write the way to it, as in #/$defs/a.")
        return found, (*inside, ref)


def joined(first: Plain, second: Plain, where: str) -> Plain:
    """The schema under which a value fits both.

    Raises:
        BadRequest: both have a keyword with rules that cannot be written as one.
    """
    found = dict(first)
    for name, rule in second.items():
        before = found.get(name)
        if name not in found or _tells(name) or before == rule:
            found[name] = rule
        elif name == "required" and isinstance(before, Sequence) and isinstance(rule, Sequence):
            found[name] = [*before, *(one for one in rule if one not in before)]
        elif name == "properties" and isinstance(before, Mapping) and isinstance(rule, Mapping):
            both: dict[str, Json] = dict(before)
            for key, one in rule.items():
                earlier = both.get(key)
                if isinstance(earlier, Mapping) and isinstance(one, Mapping):
                    both[key] = joined(dict(earlier), dict(one), below(where, key))
                else:
                    both[key] = one
            found[name] = both
        elif name in _SMALLEST and _number(before) is not None and _number(rule) is not None:
            found[name] = min((before, rule), key=_number_or_0)
        elif name in _LARGEST and _number(before) is not None and _number(rule) is not None:
            found[name] = max((before, rule), key=_number_or_0)
        else:
            raise BadRequest(f"{schema_of(where)} has two different rules for {name} at once; write them as one.")
    return found


def _number(rule: Json) -> float | None:
    return float(rule) if isinstance(rule, int | float) and not isinstance(rule, bool) else None


def _number_or_0(rule: Json) -> float:
    return _number(rule) or 0.0


def below(where: str, key: str) -> str:
    """The name of a part in sentences, by that of the part in which it stands; the whole is "the schema"."""
    return key if where == "the schema" else f"{where}.{key}"


def schema_of(where: str) -> str:
    """How a sentence about a part's schema begins."""
    return "The schema" if where == "the schema" else f"The schema of {where}"
