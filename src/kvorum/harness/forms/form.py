"""A form: what of a JSON schema is still to be written, and the object that comes of what was written.

form = Form(schema)
fields = form.fields()             all leaves that can be written at once
more = form.below(field, 3)        a list of records has 3: the leaves of all of them
filled = form.put_together(said)   the object, which fits the schema, or what is in the way
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from kvorum.errors import BadRequest
from kvorum.harness.forms.leaves import UNSAID, Said, unique
from kvorum.harness.forms.nodes import Fixed, Leaf, Node, Record, Rows, tree_of
from kvorum.harness.forms.records import written_first
from kvorum.jsontypes import Json, JsonObject

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands: names of members and numbers of items, from 0."""


class _Absent:
    """What stands for a member that is left out."""


_ABSENT = _Absent()


def spelled(path: Path) -> str:
    """A path as people write it: ``customer.address.city``, ``lines[2].price``; "value" for the whole."""
    words = ""
    for step in path:
        if isinstance(step, int):
            words += f"[{step}]"
        elif step.isidentifier() or (step.isprintable() and not set(step) & set('.[]" ') and step):
            words += f".{step}" if words else step
        else:
            words += f"[{json.dumps(step)}]"
    return words or "value"


@dataclass(frozen=True, slots=True)
class Field:
    """A leaf in its place, for one row.

    ``null``: whether the row may say that the text does not tell it. ``rows``: the list of records that this is.
    ``item``: of which item of which list it is, in words; "" outside of lists.
    """

    path: Path
    leaf: Leaf
    null: bool
    rows: Rows | None = None
    item: str = ""

    @property
    def name(self) -> str:
        """Its path in words."""
        return spelled(self.path)


@dataclass(slots=True)
class PutTogether:
    """The object, or what is in its way: ``problems`` by path. ``value`` holds what there is all the same."""

    value: Json
    problems: dict[Path, str] = field(default_factory=dict)


class Form:
    """A JSON schema as a form.

    Raises:
        BadRequest: the schema is none, says nothing of a part, or has rules that rows of their own cannot keep; the
            message names the place.
    """

    def __init__(self, schema: JsonObject) -> None:
        if not isinstance(schema, Mapping):
            raise BadRequest(f"A schema is a JSON object, not {schema!r:.60}.")
        from jsonschema import FormatChecker  # a tenth of a second, which others' starts spare
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for

        self.schema = schema
        self.tree = tree_of(schema)
        kind = validator_for(schema)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            place = ".".join(map(str, error.absolute_path)) or "its top"
            raise BadRequest(f"The schema is no JSON schema: at {place}, {error.message:.200}.") from None
        self._validator = kind(schema, format_checker=FormatChecker())

    def fields(self) -> list[Field]:
        """All leaves that can be written at once, in the schema's order."""
        return list(_fields(self.tree, (), False))

    def records(self, column: Field, names: Sequence[Json]) -> list[Field]:
        """The leaves of all records of a list, ``names`` being what tells one from another."""
        assert column.rows is not None
        found: list[Field] = []
        for at, name in enumerate(names):
            item = f"{column.name}, {at + 1} of {len(names)}: {name if isinstance(name, str) else json.dumps(name)}"
            found += _fields(column.rows.record, (*column.path, at), False, item)
        return found

    def below(self, column: Field, names: Sequence[Json]) -> list[Field]:
        """The leaves of all records of a list but those that the list's own row writes."""
        assert column.rows is not None
        first = [(*column.path, at, *path) for at in range(len(names)) for path in written_first(column.rows)]
        return [one for one in self.records(column, names) if one.path not in set(first)]

    def put_together(self, said: Mapping[Path, Said]) -> PutTogether:
        """The object that was said, as the schema has it."""
        from jsonschema.exceptions import best_match

        made = PutTogether(None)
        value = _put(self.tree, (), False, said, made.problems)
        made.value = None if isinstance(value, _Absent) else value
        if not made.problems and (wrong := best_match(self._validator.iter_errors(made.value))) is not None:
            made.problems[tuple(wrong.absolute_path)] = f"{wrong.message:.200}"
        return made


def _fields(node: Node, path: Path, skipped: bool, item: str = "") -> Iterator[Field]:
    """The leaves below a node. ``skipped``: whether what stands there may be left out."""
    if isinstance(node, Leaf):
        yield Field(path, node, node.null or skipped, item=item)
    elif isinstance(node, Record):
        for name, member in node.members.items():
            yield from _fields(member, (*path, name), skipped or node.null or name not in node.required, item)
    elif isinstance(node, Rows):
        yield Field(path, Leaf("json", node.rules, node.null, node.words), node.null or skipped, node, item)


def _put(node: Node, path: Path, skipped: bool, said: Mapping[Path, Said], problems: dict[Path, str]) -> Json | _Absent:
    """The value of a node; ``_ABSENT`` where it is left out."""
    if isinstance(node, Fixed):
        return node.value
    if isinstance(node, Record):
        below = [said.get(one.path) for one in _fields(node, path, False)]
        if (node.null or skipped) and below and all(one is not None and one.null for one in below):
            return None if node.null else _ABSENT
        parts = {
            name: _put(member, (*path, name), name not in node.required, said, problems)
            for name, member in node.members.items()
        }
        return {name: part for name, part in parts.items() if not isinstance(part, _Absent)}
    one = said.get(path, UNSAID)
    if one.null:
        if node.null:
            return None
        if isinstance(node, Rows) and not skipped and node.least == 0 and not one.misfit:
            return []
        if not skipped:
            problems[path] = one.note or "the text does not say it, and the schema wants a value"
        return _ABSENT
    if isinstance(node, Leaf):
        return one.value
    count = len(one.value) if isinstance(one.value, Sequence) else 0
    made = [_put(node.record, (*path, at), False, said, problems) for at in range(count)]
    items = [item for item in made if not isinstance(item, _Absent)]
    return unique(items) if node.rules.get("uniqueItems") is True else items
