"""Limits within which a grammar is taken, by name, so that none costs the machine more than it is worth.

What can be counted before compiling is counted here; the rest (symbols, states, time) is held while it is compiled and
followed. Text from outside may name a grammar: nothing that it says can take memory or time without bound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json

_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_REPEAT = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}|~\s*(\d+)(?:\s*\.\.\s*(\d+))?")
"""Repetitions as patterns and rules write them: ``{m,n}`` and Lark's ``~ m..n``."""
_DATA = ("const", "enum", "default", "examples")
"""Keywords whose values are no schemas."""
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
"""Keywords whose values are schemas under names that may be anything."""


@dataclass(frozen=True, slots=True)
class GrammarLimits:
    """The most that a grammar may have."""

    size: int = 1_000_000
    """Characters of its text."""
    depth: int = 60
    """How deep a schema's objects and lists may nest; references may go round."""
    parts: int = 20_000
    """Objects and lists of a schema, all together."""
    options: int = 10_000
    """Values of one ``enum``, or options of a choice."""
    repeats: int = 100_000
    """Any count that it names: of items, characters, properties or repetitions."""
    seconds: float = 5.0
    """Time to compile it."""
    symbols: int = 100_000
    """Symbols of its compiled rules. Alternatives that multiply (``allOf`` of ``anyOf``) end here."""
    states: int = 50_000
    """States of its lexer; about 2 KiB each."""


LIMITS = GrammarLimits()


def beyond(name: str, found: str) -> BadRequest:
    """The error that says which limit a grammar is beyond."""
    assert name in {field.name for field in fields(GrammarLimits)}
    return BadRequest(f"The grammar is beyond the limit {name} ({getattr(LIMITS, name):,}): {found}.")


def check_size(text: str) -> None:
    """Raises BadRequest for a text beyond the limit ``size``, or for one that is none."""
    if not isinstance(text, str) or not text.strip():
        raise BadRequest("A grammar is a text that is not empty.")
    if len(text) > LIMITS.size:
        raise beyond("size", f"its text has {len(text):,} characters")


def check_rules(text: str) -> None:
    """Raises BadRequest for a repetition in a pattern or in rules beyond the limit ``repeats``."""
    most = max((int(digits) for found in _REPEAT.findall(text) for digits in found if digits), default=0)
    if most > LIMITS.repeats:
        raise beyond("repeats", f"it repeats something {most:,} times")


def check_schema(schema: Json) -> None:
    """Raises BadRequest for a schema beyond the limits ``depth``, ``parts``, ``options`` or ``repeats``."""
    if not isinstance(schema, Mapping):
        raise BadRequest("A schema is an object.")
    if "x-guidance" in schema:
        raise BadRequest("A schema's x-guidance is not taken; leave it out, and give separators to Grammar.json.")
    level: list[Json] = [schema]
    parts = depth = 0
    while level:
        parts, depth = parts + len(level), depth + 1
        if depth > LIMITS.depth:
            raise beyond("depth", "its objects and lists nest deeper")
        if parts > LIMITS.parts:
            raise beyond("parts", "it has more objects and lists")
        below: list[Json] = []
        for part in level:
            if isinstance(part, Mapping):
                _check_keywords(part)
                below += part.values()
            elif isinstance(part, list):
                below += part
        level = [part for part in below if isinstance(part, Mapping | list)]
    if "$schema" not in schema:
        _check_references(schema)


def _check_keywords(part: Mapping[str, Json]) -> None:
    for name in _COUNTS:
        count = part.get(name)
        if isinstance(count, int | float) and count > LIMITS.repeats:
            raise beyond("repeats", f"{name} is {count:,}")
    options, pattern = part.get("enum"), part.get("pattern")
    if isinstance(options, list) and len(options) > LIMITS.options:
        raise beyond("options", f"an enum has {len(options):,} values")
    if isinstance(pattern, str):
        check_rules(pattern)


def _check_references(schema: Mapping[str, Json]) -> None:
    """Raises BadRequest where it depends on the draft, which is not told, what a ``$ref`` refers to.

    That is so where a reference is relative to the ``$id`` beside it, which drafts before 2019-09 do not read.
    """
    waiting: list[Json] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, Mapping):
            base, target = part.get("$id"), part.get("$ref")
            relative = isinstance(target, str) and not urlsplit(target).scheme
            within = part is schema and str(target).startswith("#")  # of the whole, wherever that stands
            if isinstance(base, str) and relative and not within:
                raise BadRequest(
                    f"Drafts of JSON Schema differ in what the $ref {target!r:.80} beside the $id {base!r:.80} means. "
                    "Say with $schema which draft this is, or write the reference out."
                )
            for name, below in part.items():
                if name in _NAMED and isinstance(below, Mapping):
                    waiting += below.values()
                elif name not in _DATA:
                    waiting.append(below)
