"""Lists of records in forms, without a model: what one row writes of them, and how what it wrote is read.

Of a run with such a list, ``test_fields.py``; of everyday orders with a real model, ``docs/evidence/everyday.md``.
"""

from __future__ import annotations

from typing import Any

import pytest

from kvorum.harness.forms.form import Form
from kvorum.harness.forms.leaves import Source
from kvorum.harness.forms.numbers import Numbers
from kvorum.harness.forms.records import closed_records, said_records, written_first
from kvorum.jsontypes import Json
from kvorum.programs.fields.wording import question
from test_forms import INVOICE


def test_small_records_are_written_whole_and_of_large_ones_the_first_leaves() -> None:
    form = Form(INVOICE)
    lines = next(one for one in form.fields() if one.rows)
    assert lines.rows is not None
    assert list(written_first(lines.rows)) == [("count",), ("what",), ("price",)]
    assert form.below(lines, ["pen", "pen"]) == []
    names = "abcdefgh"
    inner: dict[str, Any] = {name: {"type": "integer"} for name in names} | {"g": {"type": "string"}}
    inner["h"] = {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}
    schema: dict[str, Any] = {"type": "array", "items": {"type": "object", "properties": inner, "required": [*names]}}
    (column,) = Form(schema).fields()
    assert column.rows is not None
    assert list(written_first(column.rows)) == [("a",), ("b",), ("g",)]  # what tells records apart is among them
    below = Form(schema).below(column, ["pen", "ink"])
    assert [one.name for one in below if one.path[0] == 1] == ["[1].c", "[1].d", "[1].e", "[1].f", "[1].h.x"]
    assert {one.item for one in below} == {"value, 1 of 2: pen", "value, 2 of 2: ink"}


def test_records_are_read_and_those_without_what_each_must_have_are_left_out() -> None:
    (lines,) = (one.rows for one in Form(INVOICE).fields() if one.rows)
    source = Source("2 st penna 6,75, 1 st 62,468 kg ink; to Ulm")
    written: list[Json] = [
        {"count": 2, "what": "penna", "price": 675},
        {"count": 1, "what": "ink", "price": 62.468},
        {"count": None, "what": "Ulm", "price": None},
        {"count": 3, "what": "N/A", "price": 1},
        "no record",
    ]
    said = said_records(lines, written, source)
    assert said.value == [{"count": 2, "what": "penna", "price": 6.75}, {"count": 1, "what": "ink", "price": 62.468}]
    assert said.note.startswith('"Ulm" was left out, of which the text does not say count; and ')
    torn = said_records(lines, [{"count": 6.75, "what": "penna", "price": 6.75}], source)
    assert torn.records[0]["count",].misfit  # no whole number, and never 6 or 675
    kept = said_records(lines, [{"count": None, "what": "Ulm", "price": None}], source)
    assert kept.value == [{"count": None, "what": "Ulm", "price": None}]  # minItems is 1: it is asked for again


def test_of_a_list_that_was_cut_off_whole_records_are_kept() -> None:
    assert closed_records(' [{"a": "}"}, {"a": "b}') == [{"a": "}"}]
    assert closed_records(' [{"a": {"b": 1}}, {"a": {"b": 1}') == [{"a": {"b": 1}}]
    assert closed_records(' [{"a": 1') is None
    assert closed_records(" []") is None


@pytest.mark.parametrize(("value", "text"), [(675, "6,75"), (6.75, "6.75"), (12, "12"), (-675, "-6,75"), (9, "9")])
def test_a_number_that_json_has_is_found_in_the_text_by_its_digits(value: float, text: str) -> None:
    assert Numbers("Pris 6,75 och 12 och 1.200").as_the_text(value) == text


def test_a_list_is_asked_for_by_what_its_records_look_like() -> None:
    item = {"type": "string", "description": "what is ordered"}
    record = {"type": "object", "properties": {"item": item, "unit": {"enum": ["kg", "g"]}, "n": {"type": "integer"}}}
    schema: dict[str, Any] = {"type": "object", "properties": {"lines": {"type": "array", "items": record}}}
    (lines,) = Form(schema).fields()
    shape = '[{"item": what is ordered, "unit": one of kg, g, "n": ...}, ...]'
    assert question(lines) == f' // lines: {shape}, or null\n"lines":'
    (alone,) = Form({"type": ["string", "null"]}).fields()
    assert question(alone) == ' // value, or null\n"value":'
