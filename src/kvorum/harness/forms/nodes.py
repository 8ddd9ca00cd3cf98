"""A JSON schema as a tree of what is filled: leaves, records of them, lists of records, and what is fixed anyway.

A leaf is what one row writes: a scalar, a list of scalars, or, where a part cannot be taken apart (a union of objects,
an object with keys of any name), the whole part. Rules that hold between leaves are refused, since leaves that are
filled at the same time cannot keep them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kvorum.errors import BadRequest
from kvorum.harness.forms.plain_schema import Plain, below, joined, plain_schema, rules_of, schema_of, told
from kvorum.jsontypes import Json, JsonObject

Kind: TypeAlias = Literal["text", "number", "numbers", "choice", "truth", "date", "json"]
"""How a leaf is written and read: text; a number, or a list of them, as the text writes numbers; one of given values;
true or false; a date; any other JSON."""

SHORT_RANGE = 20
"""A whole number with at least this many values between its bounds is written as a number, with fewer chosen."""
_BETWEEN = (
    *("if", "then", "else", "not", "dependentRequired", "dependentSchemas", "dependencies", "minProperties"),
    *("maxProperties", "propertyNames", "unevaluatedProperties"),
)
_IN_LISTS = ("contains", "minContains", "maxContains", "unevaluatedItems", "additionalItems")


@dataclass(frozen=True, slots=True)
class Leaf:
    """What one row writes.

    ``rules``: its schema without null and words. ``null``: whether null is a value of it. ``words``: what it means, for
    the model; "" where nothing says so. ``options``: of a choice, its values.
    """

    kind: Kind
    rules: Plain
    null: bool = False
    words: str = ""
    options: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Fixed:
    """A value that is the only one, so that nobody writes it."""

    value: Json


@dataclass(frozen=True, slots=True)
class Record:
    """An object: its members by name, in the schema's order, and which of them must be there."""

    members: Mapping[str, Node]
    required: frozenset[str]
    null: bool = False
    words: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of records. ``column``: the way to the leaf that tells one from another; ``rules``: those of the list."""

    record: Record
    column: tuple[str, ...]
    rules: Plain
    null: bool = False
    words: str = ""

    @property
    def least(self) -> int:
        """The fewest records."""
        return _whole(self.rules.get("minItems"), 0)


Node: TypeAlias = "Leaf | Fixed | Record | Rows"


def tree_of(schema: JsonObject) -> Node:
    """The schema's tree.

    Raises:
        BadRequest: the schema says nothing of a part, cannot be understood, or has a rule between leaves; the message
            names the place.
    """
    return _node(plain_schema(schema), "the schema")


def _node(schema: Plain, where: str) -> Node:
    rules, words = rules_of(schema), told(schema, "description") or told(schema, "title")
    rules, null = _without_null(rules)
    if len(branches := _branches(rules)) == 1:
        name, (only,) = next((name, rules[name]) for name in ("anyOf", "oneOf") if name in rules), branches
        inner = joined({key: rule for key, rule in schema.items() if key in rules and key != name[0]}, only, where)
        return _with_null(_node(_described(inner, words), where), null)
    if not rules:
        raise BadRequest(_silent(where))
    if (rules == {"enum": []} and null) or "const" in rules or len(_options(rules)) == 1:
        return _fixed(rules, null, words)
    if branches:
        return _union(rules, branches, null, words, where)
    kinds = _types(rules)
    if "enum" in rules:
        return Leaf("choice", rules, null, words, _options(rules))
    if "object" in kinds and len(kinds) == 1:
        return _object(rules, null, words, where)
    if "array" in kinds and len(kinds) == 1:
        return _array(rules, null, words, where)
    return _scalar(rules, kinds, null, words, where)


def _scalar(rules: Plain, kinds: Sequence[str], null: bool, words: str, where: str) -> Leaf:
    if not kinds:
        raise BadRequest(_silent(where))
    if set(kinds) <= {"integer", "number"}:
        low, high = rules.get("minimum"), rules.get("maximum")
        if kinds == ["integer"] and isinstance(low, int) and isinstance(high, int) and high - low < SHORT_RANGE:
            return Leaf("choice", rules, null, words, tuple(range(low, high + 1)))
        return Leaf("number", rules, null, words)
    if list(kinds) == ["string"]:
        return Leaf("date" if rules.get("format") == "date" else "text", rules, null, words)
    if list(kinds) == ["boolean"]:
        return Leaf("truth", rules, null, words)
    return Leaf("json", rules, null, words)


def _fixed(rules: Plain, null: bool, words: str) -> Leaf | Fixed:
    if rules.get("enum") == []:
        return Fixed(None)
    value = rules["const"] if "const" in rules else _options(rules)[0]
    return Leaf("choice", {"enum": [value]}, True, words, (value,)) if null else Fixed(value)


def _union(rules: Plain, branches: Sequence[Plain], null: bool, words: str, where: str) -> Leaf:
    beside = [name for name in rules if name not in ("anyOf", "oneOf", "type")]
    if beside:
        raise BadRequest(f"{schema_of(where)} has {beside[0]} beside a choice of schemas; put it into each of them.")
    kinds = [_types(branch) for branch in branches]
    whole = all(kind and set(kind) <= {"integer", "number"} for kind in kinds)
    if whole and not any("enum" in branch for branch in branches):
        if "oneOf" in rules:
            raise BadRequest(f"{schema_of(where)} has oneOf with kinds of numbers, which overlap; take anyOf.")
        return Leaf("number", rules, null, words)
    for branch in branches:
        _node(branch, where)  # what it refuses alone it refuses here
    return Leaf("json", rules, null, words)


def _object(rules: Plain, null: bool, words: str, where: str) -> Record | Leaf:
    for name in _BETWEEN:
        if name in rules and not (name == "unevaluatedProperties" and rules[name] in (True, False)):
            raise BadRequest(
                f"{schema_of(where)} has {name}, a rule between fields, which are filled at the same time."
            )
    properties = rules.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        if isinstance(rules.get("additionalProperties"), Mapping) or "patternProperties" in rules:
            return Leaf("json", rules, null, words)  # keys of any name: one row writes them
        raise BadRequest(f"{schema_of(where)} is an object's and has no properties; name them.")
    if "patternProperties" in rules:
        raise BadRequest(f"{schema_of(where)} has properties and patternProperties at once; take one of them.")
    required = [str(name) for name in _list(rules.get("required"))]
    if strangers := [name for name in required if name not in properties]:
        raise BadRequest(f"{schema_of(where)} requires {strangers[0]!r}, of which it says nothing.")
    members = {name: _node(dict(_mapping(one)), below(where, name)) for name, one in properties.items()}
    return Record(members, frozenset(required), null, words)


def _array(rules: Plain, null: bool, words: str, where: str) -> Rows | Leaf:
    for name in _IN_LISTS:
        if name in rules and rules[name] is not False:
            raise BadRequest(f"{schema_of(where)} has {name}, a rule between items, which is not supported.")
    if _list(rules.get("prefixItems")):
        return Leaf("json", rules, null, words)
    items = rules.get("items")
    if not isinstance(items, Mapping):
        raise BadRequest(f"{schema_of(where)} is a list's and has no items; say what they are.")
    item = _node(dict(items), f"{where}[]")
    rest = {name: rule for name, rule in rules.items() if name not in ("items", "type")}
    if isinstance(item, Record) and not item.null:
        return Rows(item, _column(item, where), rest, null, words or item.words)
    if isinstance(item, Leaf) and item.kind == "number" and not item.null:
        return Leaf("numbers", rules, null, words or item.words)
    return Leaf("json", rules, null, words)


def _column(record: Record, where: str) -> tuple[str, ...]:
    """The first text of a record that must be there, else its first leaf: what tells one record from another."""
    leaves = scalars(record)
    if not leaves:
        raise BadRequest(f"Nothing in the items of {where} can tell one from another; give them a text or a number.")
    named = [path for path, leaf, sure in leaves if leaf.kind == "text" and not leaf.null and sure]
    return (named or [path for path, leaf, _ in leaves if leaf.kind == "text"] or [leaves[0][0]])[0]


def scalars(record: Record, path: tuple[str, ...] = (), sure: bool = True) -> list[tuple[tuple[str, ...], Leaf, bool]]:
    """The leaves of a record that are no lists and no free JSON: their paths, they, and whether they must be there."""
    found = []
    for name, node in record.members.items():
        there = sure and name in record.required
        if isinstance(node, Leaf) and node.kind not in ("json", "numbers"):
            found.append(((*path, name), node, there))
        elif isinstance(node, Record):
            found += scalars(node, (*path, name), there and not node.null)
    return found


# -- parts of a schema -------------------------------------------------------------------------------------------------


def _without_null(rules: Plain) -> tuple[Plain, bool]:
    """The rules of all other values, and whether null is one."""
    found, null = dict(rules), False
    if rules.get("type") == "null" or rules.get("const", ()) is None:
        return {"enum": []}, True
    kinds = rules.get("type")
    if isinstance(kinds, list) and "null" in kinds:
        left, null = [kind for kind in kinds if kind != "null"], True
        found["type"] = left[0] if len(left) == 1 else left
    if "enum" in rules:
        values = _list(rules["enum"])
        null = None in values and (null or kinds is None)
        found["enum"] = [value for value in values if value is not None]
    for name in ("anyOf", "oneOf"):
        branches = _list(rules.get(name))
        left = [one for one in branches if not _is_null(one)]
        if branches and len(left) < len(branches):
            found[name], null = left, True
    return found, null


def _is_null(schema: Json) -> bool:
    rules = rules_of(_mapping(schema))
    return rules in ({"type": "null"}, {"const": None}, {"enum": [None]})


def _branches(rules: Plain) -> list[Plain]:
    return [dict(_mapping(one)) for name in ("anyOf", "oneOf") for one in _list(rules.get(name))]


def _options(rules: Plain) -> tuple[Json, ...]:
    kinds = _types(rules) if "type" in rules else []
    return tuple(value for value in _list(rules.get("enum")) if not kinds or _type_of(value) in kinds)


def _types(rules: Plain) -> list[str]:
    """The types that the rules name, or mean by having keywords of one."""
    named = rules.get("type")
    if named is not None:
        found = [str(kind) for kind in (named if isinstance(named, list) else [named])]
        return [*found, "integer"] if "number" in found and "enum" in rules else found
    if "properties" in rules or "patternProperties" in rules or "required" in rules:
        return ["object"]
    return ["array"] if "items" in rules or "prefixItems" in rules else []


def _type_of(value: Json) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    return "number" if isinstance(value, float) else "object" if isinstance(value, Mapping) else "array"


def _described(schema: Plain, words: str) -> Plain:
    return {**schema, "description": words} if words else schema


def _with_null(node: Node, null: bool) -> Node:
    if not null or (not isinstance(node, Fixed) and node.null):
        return node
    if isinstance(node, Fixed):
        return Leaf("choice", {"enum": [node.value]}, True, "", (node.value,))
    if isinstance(node, Leaf):
        return Leaf(node.kind, node.rules, True, node.words, node.options)
    if isinstance(node, Record):
        return Record(node.members, node.required, True, node.words)
    return Rows(node.record, node.column, node.rules, True, node.words)


def _mapping(value: Json) -> JsonObject:
    return value if isinstance(value, Mapping) else {}


def _list(value: Json) -> list[Json]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []


def _whole(value: Json, default: int) -> int:
    return int(value) if isinstance(value, int | float) else default


def _silent(where: str) -> str:
    return f"{schema_of(where)} names no type; give it one, or an enum or a const."
