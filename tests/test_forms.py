"""Forms without a model: a schema's leaves, what is refused, numbers as texts write them, and the object at the end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kvorum.errors import BadRequest
from kvorum.harness.forms.form import Field, Form, spelled
from kvorum.harness.forms.leaves import Said, Source, closed, read_value, understood
from kvorum.harness.forms.nodes import Leaf
from kvorum.harness.forms.numbers import Numbers
from kvorum.jsontypes import Json

INVOICE: dict[str, Any] = {
    "type": "object",
    "required": ["number", "lines", "net", "kind"],
    "properties": {
        "number": {"type": "string", "description": "number of\n the invoice"},
        "kind": {"const": "invoice"},
        "date": {"type": "string", "format": "date"},
        "net": {"type": "number", "minimum": 0},
        "customer": {"anyOf": [{"$ref": "#/$defs/Customer"}, {"type": "null"}], "default": None},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}, "minItems": 1},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "sizes": {"type": ["array", "null"], "items": {"type": "integer"}},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "unit": {"enum": ["kg", "g", None]},
    },
    "$defs": {
        "Customer": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "city": {"type": ["string", "null"]}},
            "required": ["name", "city"],
        },
        "Line": {
            "type": "object",
            "properties": {"count": {"type": "integer"}, "what": {"type": "string"}, "price": {"type": "number"}},
            "required": ["count", "what", "price"],
            "additionalProperties": False,
        },
    },
}


def said_null(form: Form) -> dict[tuple[str | int, ...], Said]:
    return {one.path: Said(null=True) for one in form.fields()}


def test_the_leaves_of_a_schema_with_their_kinds() -> None:
    found = {one.name: (one.leaf.kind, one.null, one.rows is not None) for one in Form(INVOICE).fields()}
    assert found == {
        "number": ("text", False, False),
        "date": ("date", True, False),
        "net": ("number", False, False),
        "customer.name": ("text", True, False),
        "customer.city": ("text", True, False),
        "lines": ("json", False, True),
        "tags": ("json", True, False),
        "sizes": ("numbers", True, False),
        "stars": ("choice", True, False),
        "unit": ("choice", True, False),
    }
    assert next(one for one in Form(INVOICE).fields() if one.name == "number").leaf.words == "number of the invoice"


def test_what_was_said_is_put_together_and_null_is_told_from_absent() -> None:
    form = Form(INVOICE)
    said = said_null(form) | {
        ("number",): Said("7"),
        ("net",): Said(5),
        ("lines",): Said(["pen"]),
        ("lines", 0, "what"): Said("pen"),
        ("lines", 0, "count"): Said(3),
        ("lines", 0, "price"): Said(1.5),
    }
    made = form.put_together(said)
    assert not made.problems
    assert made.value == {
        "number": "7",
        "kind": "invoice",
        "net": 5,
        "customer": None,  # the schema has null for it; date, which has not, is left out
        "lines": [{"count": 3, "what": "pen", "price": 1.5}],
        "sizes": None,
        "unit": None,
    }


def test_a_record_of_which_only_a_part_is_said_must_have_the_rest() -> None:
    form = Form(INVOICE)
    said = said_null(form) | {("customer", "city"): Said("Ulm"), ("number",): Said("7"), ("net",): Said(5)}
    assert set(form.put_together(said).problems) == {("customer", "name"), ("lines",)}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "The schema names no type"),
        ({"type": "object"}, "The schema is an object's and has no properties"),
        ({"type": "object", "properties": {}}, "The schema is an object's and has no properties"),
        ({"type": "object", "properties": {"a": {}}}, "The schema of a names no type"),
        (
            {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": True}}}},
            "The schema of a.b names no type",
        ),
        ({"$ref": "#"}, "contains itself"),
        ({"type": "object", "properties": {"a": {"type": "array", "items": {"$ref": "#"}}}}, "contains itself"),
        ({"type": "object", "properties": {"a": {"type": "string", "nullable": True}}}, "no keyword 'nullable'"),
        ({"type": "object", "requird": ["a"], "properties": {"a": {"type": "string"}}}, "did you mean required"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "if": {}, "then": {}}, "has if, a rule between"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "minProperties": 1}, "minProperties"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "dependentRequired": {"a": []}}, "dependent"),
        ({"type": "object", "properties": {"a": {"not": {"type": "string"}, "type": "object"}}}, "has not"),
        ({"type": "object", "properties": {"n": {"type": "integer"}}, "patternProperties": {"^n$": {}}}, "patternProp"),
        ({"type": "object", "properties": {"a": {"$ref": "https://x.example/y"}}}, "lies outside"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/q"}}}, "there is nothing"),
        ({"type": "array"}, "The schema is a list's and has no items"),
        ({"type": "array", "items": {"type": "string"}, "contains": {"const": "a"}}, "contains"),
        ({"type": "object", "required": ["z"], "properties": {"a": {"type": "string"}}}, "requires 'z'"),
        ({"type": "object", "properties": {"a": False}}, "No value is allowed for a"),
        ({"type": "object", "properties": {"a": {"allOf": [{"pattern": "a"}, {"pattern": "b"}]}}}, "two different"),
        ({"type": "strin"}, "no JSON schema"),
        (
            {"type": "object", "properties": {"op": {"const": 1}}, "oneOf": [{"type": "object"}, {}]},
            "properties beside",
        ),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "which overlap"),
        (["a"], "a JSON object"),
    ],
)
def test_what_cannot_be_filled_is_refused_in_a_sentence(schema: Any, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Form(schema)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_bombs_are_refused() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        deep = {"type": "object", "properties": {"a": deep}}
    with pytest.raises(BadRequest, match="levels"):
        Form(deep)
    doubling: dict[str, Any] = {
        f"d{n}": {"type": "object", "properties": {k: {"$ref": f"#/$defs/d{n + 1}"} for k in "abcdef"}}
        for n in range(9)
    }
    with pytest.raises(BadRequest, match="parts"):
        Form({"$ref": "#/$defs/d0", "$defs": {**doubling, "d9": {"type": "string"}}})


def test_references_and_all_of_are_put_in_place() -> None:
    schema: dict[str, Any] = {
        "allOf": [
            {"$ref": "#/definitions/base"},
            {"type": "object", "properties": {"b": {"type": "integer", "minimum": 3}}, "required": ["b"]},
        ],
        "definitions": {"base": {"type": "object", "properties": {"a/b": {"enum": ["x", "y"]}}, "required": ["a/b"]}},
    }
    assert [(one.name, one.leaf.kind, one.null) for one in Form(schema).fields()] == [
        ("a/b", "choice", False),
        ("b", "number", False),
    ]


def test_paths_can_be_told_apart() -> None:
    assert spelled(("a", "b", 2, "c d")) == 'a.b[2]["c d"]'
    assert spelled(("a.b",)) != spelled(("a", "b"))
    assert spelled(()) == "value"


# -- numbers (P90, P91) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written", "value"),
    [
        ("Pris 6,75 och 41,20", "6,75", 6.75),
        ("Prix 41,20", "41,20", 41.2),
        ("6.75 each", "6.75", 6.75),
        ("Summe 1.234,50", "1.234,50", 1234.5),
        ("sum 1,234.50", "1,234.50", 1234.5),
        ("it is 7.5 tonnes and 62,468 euros", "62,468", 62468),
        ("7,5 Tonnen und 62.468 Euro", "62.468", 62468),
        ("1,234,567 in all and 62,468", "62,468", 62468),
        ("18 500 kr", "18 500", 18500),
        ("18\u00a0500,50 kr", "18\u00a0500,50", 18500.5),
        ("2.5 million", "2.5 million", 2500000),
        ("minus -3.5", "-3.5", -3.5),
        ("0.125", "0.125", 0.125),
        ("6,75", "6.75", 6.75),  # turned into JSON's way by the model
        ("no number", "14", 14),
        ("x", "abc", None),
    ],
)
def test_a_number_is_read_as_its_text_means_it(text: str, written: str, value: float | None) -> None:
    reading = Numbers(text).read(written)
    assert (None if reading is None else reading.value) == value
    assert reading is None or reading.other is None


def test_a_number_that_the_text_does_not_decide_is_flagged() -> None:
    leaf = Leaf("number", {"type": "number"})
    said = understood(leaf, "62,468", Source("It is 62,468."), null=False)
    assert said.value == 62468
    assert "62.468" in said.note
    whole = understood(Leaf("number", {"type": "integer"}), "62,468", Source("It is 62,468."), null=False)
    assert (whole.value, whole.note) == (62468, "")


@pytest.mark.parametrize("written", ["18.5", "185", "18,5"])
def test_a_whole_number_is_never_torn_from_another(written: str) -> None:
    said = understood(Leaf("number", {"type": "integer"}), written, Source("Weight 18.5 kg"), null=True)
    assert said.null
    assert said.misfit
    assert "18.5" in said.note


def test_the_whole_part_of_a_number_alone_is_noted() -> None:
    said = understood(Leaf("number", {"type": "integer"}), "18", Source("Weight 18.5 kg"), null=True)
    assert (said.value, said.note) == (18, "the text has 18.5")


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**9),
    st.integers(0, 99),
    st.sampled_from([("", "."), (",", "."), (".", ","), (" ", ","), ("", ",")]),
)
def test_every_way_of_writing_a_number_with_decimals_is_read(whole: int, part: int, marks: tuple[str, str]) -> None:
    written = f"{whole:,}".replace(",", marks[0]) + f"{marks[1]}{part:02}"
    reading = Numbers(f"The sum is {written} in all.").read(written)
    assert reading is not None
    assert reading.value == pytest.approx(float(f"{whole}.{part:02}"))


# -- null, dates, ends (P88, P89, P92) ---------------------------------------------------------------------------------


def test_null_is_no_word_unless_the_text_has_it() -> None:
    leaf = Leaf("text", {"type": "string"}, True)
    for word in ("null", "N/A", "n/a", "None", "not specified", "", "unknown", "-"):
        assert understood(leaf, word, Source("The code is null-7."), null=True).null, word
    assert understood(leaf, "null-7", Source("The code is null-7."), null=True).value == "null-7"
    assert understood(leaf, "null", Source("They call him null here."), null=True).value == "null"
    must = understood(leaf, "N/A", Source("Nothing."), null=False)
    assert (must.value, must.null) == ("N/A", False)
    assert must.note


@pytest.mark.parametrize(
    ("text", "value", "note"),
    [
        ("Fakturadatum: 20260304", "2026-03-04", ""),
        ("on 4 March 2026", "2026-03-04", ""),
        ("on 4 March", "2026-03-04", "the text has no year 2026"),
        ("20261304", "2026-12-04", "the text has no year 2026"),
        ("in March 2026", "2026-03-04", "the text has no day 4"),
    ],
)
def test_a_date_that_does_not_stand_in_the_text_is_flagged(text: str, value: str, note: str) -> None:
    assert understood(Leaf("date", {}), value, Source(text), null=False) == Said(value, note=note)


@pytest.mark.parametrize(
    ("written", "value", "complete"),
    [
        (' "a, b"', "a, b", True),
        (' "a', None, False),
        (" 12", 12, False),
        (" 12,", 12, True),
        (" null", None, True),
        (" true", True, True),
        (' ["a", "b"]}', ["a", "b"], True),
        (' ["a", "b"', None, False),
    ],
)
def test_where_a_value_ends(written: str, value: Json, complete: bool) -> None:
    assert read_value(written) == (value, complete)


def test_what_was_cut_off_is_closed_where_it_can_be() -> None:
    assert closed(' "a long te') == "a long te"
    assert closed(' "a \\') == "a "
    assert closed(' ["a", "b') == ["a", "b"]
    assert closed(' ["a"') == ["a"]
    assert closed(" tr") is None


# -- whatever is said, the object fits ---------------------------------------------------------------------------------

SCALARS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"type": ["number", "null"]},
    {"type": "boolean"},
    {"enum": ["a", "b", 3, None]},
    {"type": "string", "format": "date"},
    {"const": 5},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
]


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    def record(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        properties = st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3)
        made = properties.flatmap(
            lambda found: st.lists(st.sampled_from(sorted(found)), unique=True).map(
                lambda required: {"type": "object", "properties": found, "required": required}
            )
        )
        return st.one_of(
            made,
            made.map(lambda one: {"type": "array", "items": one, "maxItems": 2}),
            made.map(lambda one: {"anyOf": [one, {"type": "null"}]}),
        )

    return st.recursive(st.sampled_from(SCALARS), record, max_leaves=8)


def answer(field: Field, draw: Any) -> Said:
    leaf = field.leaf
    if field.null and draw(st.booleans()):
        return Said(null=True)
    kinds: dict[str, Any] = {
        "text": "x y",
        "number": 7,
        "numbers": [1, 2],
        "truth": True,
        "date": "2026-03-04",
        "json": None,
    }
    value = leaf.options[0] if leaf.kind == "choice" else kinds[leaf.kind]
    return Said([value] * draw(st.integers(0, 2))) if field.rows else Said(value)


@settings(max_examples=150, deadline=None)
@given(schemas(), st.data())
def test_what_is_put_together_fits_the_schema_or_says_what_is_missing(
    schema: dict[str, Any], data: st.DataObject
) -> None:
    try:
        form = Form(schema)
    except BadRequest:
        return
    said: dict[tuple[str | int, ...], Said] = {}
    todo = form.fields()
    while todo:
        field = todo.pop()
        said[field.path] = found = answer(field, data.draw)
        if field.rows is not None and isinstance(found.value, list):
            below = form.below(field, found.value)
            for one in form.records(field, found.value):
                if one not in below:
                    said[one.path] = answer(one, data.draw)
            todo += below
    made = form.put_together(said)
    if made.problems:
        assert all(words for words in made.problems.values())
    else:
        assert Draft202012Validator(schema).is_valid(made.value)
        assert json.loads(json.dumps(made.value)) == made.value
