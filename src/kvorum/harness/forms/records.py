"""Lists of records: what of them one row writes, under which rules, and what it has said.

    "lines": [{"item": "desk lamp", "count": 2}, {"item": "tool box", "count": 1}]

A record of few leaves is written whole; of a larger one the first few, by which records are told apart, and the rest
follows in rows of its own. The row may write null for anything. That is how a model says that something is none of the
list's: a record without a value that each must have is left out, and a note says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvorum.harness.forms.leaves import Said, Source, rules_as_written, understood
from kvorum.harness.forms.nodes import Fixed, Leaf, Record, Rows, scalars
from kvorum.harness.forms.plain_schema import Plain
from kvorum.jsontypes import Json

Names = tuple[str, ...]
"""The way from a record to one of its leaves."""

WHOLE = 6
"""The most leaves of a record that is written whole."""
FIRST = 3
"""How many leaves of a larger one are written first."""
TIMES = 8
"""How many times as long as a field a list may be."""


def written_first(rows: Rows) -> dict[Names, Leaf]:
    """The leaves that the list's row writes of each record, in the schema's order."""
    found = {path: leaf for path, leaf, _ in scalars(rows.record)}
    if len(found) <= WHOLE and len(found) == _leaves(rows.record):
        return found
    chosen = [rows.column, *(path for path in found if path != rows.column)][:FIRST]
    return {path: leaf for path, leaf in found.items() if path in chosen}


def _leaves(record: Record) -> int:
    parts = [node for node in record.members.values() if not isinstance(node, Fixed)]
    return sum(_leaves(node) if isinstance(node, Record) else 1 for node in parts)


def key_of(names: Names) -> str:
    """How the row calls a leaf."""
    return ".".join(names)


def records_as_written(rows: Rows, source: Source) -> Plain:
    """The schema of what the list's row writes."""
    properties: dict[str, Json] = {}
    for names, leaf in written_first(rows).items():
        rules: Plain = {"type": "number"} if leaf.kind == "number" else rules_as_written(leaf, source)
        properties[key_of(names)] = {"anyOf": [rules, {"type": "null"}]}
    record: Plain = {"type": "object", "properties": properties, "required": list(properties)}
    lengths: Plain = {name: rows.rules[name] for name in ("minItems", "maxItems") if name in rows.rules}
    return {"type": "array", "items": {**record, "additionalProperties": False}, **lengths}


@dataclass(frozen=True, slots=True)
class SaidRecords:
    """What a row has said of a list's records: each record's leaves, and what a reader should know."""

    records: Sequence[Mapping[Names, Said]]
    note: str = ""

    @property
    def value(self) -> list[Json]:
        """The records as far as they are said, by the row's keys."""
        return [{key_of(names): said.value for names, said in one.items()} for one in self.records]


def said_records(rows: Rows, value: Sequence[Json], source: Source) -> SaidRecords:
    """What a row that wrote ``value`` has said."""
    leaves = written_first(rows)
    needed = [names for names, leaf, sure in scalars(rows.record) if names in leaves and sure and not leaf.null]
    found: list[dict[Names, Said]] = []
    notes: list[str] = []
    over = len(value) - rows.least
    for one in value:
        given = one if isinstance(one, Mapping) else {}
        said = {names: _said(leaf, given.get(key_of(names)), source) for names, leaf in leaves.items()}
        lacks = next((names for names in needed if said[names].null and not said[names].misfit), None)
        if lacks is not None and over > 0:
            over -= 1
            shown = json.dumps(given.get(key_of(rows.column)), ensure_ascii=False)
            notes.append(f"{shown} was left out, of which the text does not say {key_of(lacks)}")
            continue
        notes += [f"{key_of(names)} of {len(found) + 1}: {part.note}" for names, part in said.items() if part.note]
        found.append(said)
    more = f"; and {len(notes) - 1} more" if len(notes) > 1 else ""
    return SaidRecords(found, notes[0] + more if notes else "")


def _said(leaf: Leaf, value: Json, source: Source) -> Said:
    if leaf.kind == "number" and isinstance(value, int | float):
        value = source.numbers.as_the_text(value)
    return understood(leaf, value, source, null=True)


def closed_records(written: str) -> list[Json] | None:
    """The records that stand whole in a list that was cut off; None: there is none."""
    at = len(written)
    while (at := written.rfind("}", 0, at)) >= 0:
        try:
            found: list[Json] = json.loads(written[: at + 1] + "]")
        except ValueError:
            continue
        return found
    return None
