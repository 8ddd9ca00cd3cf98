"""``fields``: values are those of one row at a time, the object always fits, lists of records, who sees whom, budgets,
full caches, replay, confidence.

The toy has random weights: what counts here is the form of what is written. Right values of real models are in
``docs/fields.md`` and, for two texts, in the tests marked slow.
"""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

import form_texts
import toy_engine
from kvorum import Budget, Engine, Result, Row, Sampling, View
from kvorum.errors import BadRequest, GrammarError
from kvorum.harness.forms.filled import FilledForm, NotFilled
from kvorum.harness.forms.form import Form
from kvorum.harness.forms.leaves import Source
from kvorum.programs.fields.fields import closing_tokens
from kvorum.programs.fields.null_or_number import NullOrNumber
from kvorum.programs.fields.rows import grammar
from kvorum.programs.fields.wording import OPENING, question, request, shared
from kvorum.runs.program import find
from kvorum.sampling.sampling import unpacked
from kvorum.store.events import note_data

TEXT = "The mill of Arden was built in 1804 by Ada Finch. It weighs 18.5 tonnes and has three wheels."
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "who": {"type": "string", "description": "who built it", "maxLength": 12},
        "year": {"type": ["integer", "null"]},
        "sort": {"enum": ["mill", "house", "ship"]},
        "stands": {"type": "boolean"},
        "place": {"type": "object", "properties": {"town": {"type": "string", "maxLength": 8}}, "required": ["town"]},
        "wheels": {
            "type": "array",
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 6}, "turns": {"type": "boolean"}},
                "required": ["name", "turns"],
            },
        },
    },
    "required": ["who", "year", "sort", "stands", "wheels"],
}


def fill(engine: Engine, schema: Any = FORM, text: str = TEXT, **options: Any) -> Result:
    more = {"budget": Budget(), "sampling": Sampling(), "tokens": 24, **options}
    return engine.run(find("fields"), text, schema=json.dumps(schema), **more)


def filled(result: Result) -> FilledForm:
    form = result.product
    assert isinstance(form, FilledForm)
    return form


def seen(form: FilledForm) -> dict[str, Any]:
    return {one.name: one.value for one in form.fields}


@pytest.mark.forward
def test_values_are_those_of_one_row_at_a_time() -> None:
    engine = toy_engine.engine()
    alone = filled(fill(engine, workers=1))
    assert not alone.problems
    assert Draft202012Validator(FORM).is_valid(alone.value)
    for rows in (2, 3, None):
        assert filled(fill(engine, workers=rows)).value == alone.value
    only = {**FORM, "properties": {"sort": FORM["properties"]["sort"]}, "required": ["sort"]}
    assert seen(filled(fill(engine, only)))["sort"] == seen(alone)["sort"]


@pytest.mark.forward
@pytest.mark.parametrize("sees", ["none", "earlier", "live"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_object_fits_whatever_is_written(sees: str, seed: int) -> None:
    engine = toy_engine.engine()
    form = filled(fill(engine, sees=sees, seed=seed, sampling=Sampling(1.0)))
    assert not form.problems
    assert Draft202012Validator(FORM).is_valid(form.value)


@pytest.mark.forward
def test_a_list_of_small_records_is_one_row_and_of_large_ones_the_rest_follows_at_once() -> None:
    inner: dict[str, Any] = {"a": {"const": "x"}, "b": {"enum": ["yes", "no"]}, "c": {"type": "boolean"}}
    for large in (False, True):
        more = {name: {"type": "boolean"} for name in "defgh"} if large else {}
        record = {"type": "object", "properties": {**inner, **more}, "required": [*inner, *more]}
        schema: dict[str, Any] = {"type": "array", "items": record, "minItems": 3, "maxItems": 3}
        result = fill(toy_engine.engine(), schema, tokens=48, seed=1, sampling=Sampling(1.0))
        form = filled(result)
        assert not form.problems
        assert Draft202012Validator(schema).is_valid(form.value)
        names = [one.name for one in form.fields]
        if not large:
            assert set(names[1:]) <= {
                f"[{at}].{name}" for at in range(3) for name in "bc"
            }  # what was null, asked again
            continue
        followed = {f"[{at}].{name}" for at in range(3) for name in "efgh"}
        assert followed <= set(names)
        ticks = [event for event in result.trace.events if event["event"] == "tick"]
        assert any(followed <= {row["worker"] for row in event["rows"]} for event in ticks)


@pytest.mark.forward
def test_a_text_that_must_be_there_is_never_the_word_null() -> None:
    engine = toy_engine.engine()
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    (leaf,) = Form(schema).fields()
    words = list(engine.tokenizer(' "null').input_ids)
    for text, allowed in (("The code is 7.", False), ("The code is null-7.", True)):
        matcher = engine.grammars.matcher(grammar(leaf, Source(text), last=True))
        if allowed:
            matcher.take(words)
        else:
            with pytest.raises(GrammarError):
                matcher.take(words)


@pytest.mark.forward
def test_earlier_fields_are_seen_and_live_ones_too() -> None:
    engine = toy_engine.engine()
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: {"enum": ["one", "two"]} for name in "abc"},
        "required": list("abc"),
    }
    shown: dict[str, dict[str, list[str]]] = {}
    for sees in ("none", "earlier", "live"):
        result = fill(engine, schema, sees=sees)
        views = [event for event in result.trace.events if event["event"] == "view"]
        shown[sees] = {event["worker"]: [str(item[0]) for item in event["items"]] for event in views}
        assert seen(filled(result))["a"] == seen(filled(fill(engine, schema)))["a"] or sees == "live"
    assert [len(shown["earlier"][name]) for name in "abc"] == [3, 4, 5]
    assert [len(shown["live"][name]) for name in "abc"] == [5, 5, 5]


@pytest.mark.forward
def test_a_run_replays() -> None:
    engine = toy_engine.engine()
    for sees in ("none", "live"):
        first = fill(engine, sees=sees)
        again = fill(toy_engine.engine(), sees=sees, replay=first.trace.events)
        assert again.differences == []
        assert again.answer == first.answer


@pytest.mark.forward
@pytest.mark.parametrize("limit", [{"ticks": 3}, {"tokens": 200}, {"prefill": 150}, {"ticks": 4}])
def test_no_more_than_the_budget_is_spent_and_what_is_there_is_told(limit: dict[str, int]) -> None:
    result = fill(toy_engine.engine(), budget=Budget(**limit))
    name, most = next(iter(limit.items()))
    assert result.spent == name
    spent = getattr(result.ledger, name)
    assert spent <= most if name == "ticks" else spent < most + 200  # the tick that reaches a limit of tokens is whole
    form = filled(result)
    assert result.answer is None
    assert form.problems
    assert all("budget" in why or "does not say" in why for why in form.problems.values())


@pytest.mark.forward
def test_what_does_not_fit_the_cache_waits() -> None:
    engine = toy_engine.engine()
    small = toy_engine.engine(kv_tokens=1400)
    assert filled(fill(small)).value == filled(fill(engine)).value
    with pytest.raises(BadRequest, match=r"takes \d+ tokens"):
        fill(toy_engine.engine(kv_tokens=200))


@pytest.mark.forward
def test_the_vocabulary_is_read_once_for_the_confidence_of_all_runs() -> None:
    engine = toy_engine.engine()
    found = closing_tokens(engine)
    assert closing_tokens(engine) is found
    words = [engine.tokenizer.decode([token]) for token in found.nonzero().flatten().tolist()]
    assert words
    assert all(word.startswith('"') for word in words)


@pytest.mark.forward
def test_confidence_is_the_probability_under_the_grammar() -> None:
    """Written again as a plain forward, token by token, for a choice, of which no token closes a text early."""
    engine = toy_engine.engine()
    schema: dict[str, Any] = {"type": "object", "properties": {"n": {"enum": [1, 2, 30]}}, "required": ["n"]}
    result = fill(engine, schema, confidence=True)
    (field,) = filled(result).fields
    worker = next(one for one in result.workers if one.name == "n")
    (leaf,) = Form(schema).fields()
    matcher = engine.grammars.matcher(grammar(leaf, Source(TEXT), last=True))
    ids = list(engine.tokenizer(f"{shared(TEXT)}{request('')}\n\n{OPENING}{question(leaf)}").input_ids)
    chance = 1.0
    for token in worker.ids:
        logits = engine.forward([Row(View(engine.block()), ids=ids)]).logits[0]
        legal = torch.from_numpy(unpacked(matcher.bits(), len(logits)))
        chance *= float(logits[legal].softmax(0)[int(legal[:token].sum())])
        matcher.take([token])
        ids.append(token)
    assert field.confidence == pytest.approx(chance, rel=1e-6)
    assert 0 < chance < 1
    assert not math.isclose(chance, 1.0)


@pytest.mark.forward
def test_notes_and_values_are_in_the_trace() -> None:
    result = fill(toy_engine.engine())
    told = [note_data(event) for event in result.trace.events if event["event"] == "note" and event["kind"] == "field"]
    assert {data["worker"] for data in told} >= {"who", "year", "sort", "stands"}
    assert json.loads(result.answer or "") == filled(result).value


class Mill(BaseModel):
    """A mill."""

    sort: str = Field(pattern="^(mill|house)$")
    stands: bool
    year: int | None = None


@pytest.mark.forward
def test_a_class_of_pydantic_gives_an_instance() -> None:
    engine = toy_engine.engine()
    mill = engine.fields(TEXT, Mill, tokens=24)
    assert isinstance(mill, Mill)
    assert mill.sort in ("mill", "house")


@pytest.mark.forward
def test_a_number_that_does_not_fit_is_an_error_with_the_rest() -> None:
    """18.5 is no whole number: null where the schema has it, else the form is not filled. Never 185 (P90)."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"t": {"type": "integer", "minimum": 10**16}},
        "required": ["t"],
    }
    with pytest.raises(NotFilled, match=r"t: ") as told:
        toy_engine.engine().fields(TEXT, schema, tokens=24)
    assert told.value.form.problems


@pytest.mark.forward
@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "no JSON"),
        ("[1]", "a JSON object"),
        ({"type": "object"}, "an object's and has no properties"),
        ({"type": "array", "items": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "overlap"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)y"}}}, "grammar"),
    ],
)
def test_what_cannot_be_filled_is_refused_before_anything_is_encoded(schema: Any, words: str) -> None:
    engine = toy_engine.engine()
    with pytest.raises(BadRequest, match=words):
        engine.fields(TEXT, schema, tokens=8)
    assert engine.ledger.tokens == 0


@pytest.mark.forward
def test_many_fields_take_their_turns() -> None:
    names = [f"field{at}" for at in range(100)]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: {"type": "boolean"} for name in names},
        "required": names,
    }
    result = fill(toy_engine.engine(), schema)
    value = filled(result).value
    assert isinstance(value, dict)
    assert list(value) == names
    rows = [len(event["rows"]) for event in result.trace.events if event["event"] == "tick"]
    assert max(rows) == 16


@pytest.mark.forward
def test_the_real_model_tells_null_from_a_word_and_never_tears_a_number(smollm2: Engine) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "weight_kg": {"type": ["integer", "null"], "description": "weight in kilograms"},
            "code": {"type": ["string", "null"], "description": "the code on the tag"},
            "date": {"type": "string", "format": "date", "description": "the date of the note"},
        },
        "required": ["weight_kg", "code", "date"],
    }
    text = "Note of 20260304. The crate weighs 18.5 kg. The code on its tag is null-7."
    form = smollm2.fields(text, schema)
    assert isinstance(form.value, dict)
    assert form.value["weight_kg"] in (None, 18)
    assert str(form.value["code"]).lower() not in ("null", "n/a", "unknown", "none") or form.value["code"] is None
    assert form.value["date"] == "2026-03-04" or form.notes["date"]


def test_null_is_weighed_against_every_way_to_begin_a_number(smollm2: Engine) -> None:
    """Of the bare way, which the grammar forbids, the probability is on the side of the number."""
    schema: dict[str, Any] = {"type": "object", "properties": {"n": {"type": ["integer", "null"]}}}
    (leaf,) = Form(schema).fields()
    matcher = smollm2.grammars.matcher(grammar(leaf, Source("23 of 7"), last=True))
    run: Any = SimpleNamespace(engine=smollm2, encode=lambda text: smollm2.tokenizer(text).input_ids)
    worker: Any = SimpleNamespace(matcher=matcher, ids=[])
    either = NullOrNumber(run, worker)
    (null,), (quote, *_), (bare, *_) = (run.encode(text) for text in (" null", ' "', " 7"))
    vocab = smollm2.shape.vocab
    legal = torch.from_numpy(unpacked(matcher.bits(), vocab))
    assert legal[null]
    assert legal[quote]

    def weighed(**shares: float) -> torch.Tensor | None:
        logits = torch.full((vocab,), -30.0)
        for token, share in zip((null, quote, bare), shares.values(), strict=True):
            logits[token] = math.log(share)
        return either.allowed(logits, "")

    assert weighed(null=0.5, quote=0.1, bare=0.4) is None
    number = weighed(null=0.4, quote=0.1, bare=0.5)
    assert number is not None
    assert not number[null]
    assert number[quote]
    assert not bool((number & ~legal).any())
    assert either.shares[0] == pytest.approx(math.log(0.6), abs=1e-3)
    assert either.allowed(torch.zeros(vocab), ' "2') is None  # it is a number by now


@pytest.mark.slow
def test_a_number_that_may_be_null_is_said_where_the_text_says_it_and_only_there() -> None:
    engine = Engine.load("qwen2.5-coder-1.5b", kv_tokens=4096)
    text = (
        "Minutes of the allotment society. 23 members were present. The pump was replaced after nine days. The new "
        "pump cost 1,310 euros. The yearly fee stays at 85 euros. The bees were approved with 18 votes against 4."
    )
    said = {"members_present": 23, "pump_cost_euros": 1310, "yearly_fee_euros": 85}
    unsaid = ("number_of_dogs", "treasurer_age", "hall_rent_euros")
    names = {name: {"type": ["number", "null"]} for name in (*said, *unsaid)}
    form = engine.fields(text, {"type": "object", "properties": names})
    assert form.value == {**said, **dict.fromkeys(unsaid)}


@pytest.mark.slow
def test_the_larger_model_fills_forms_right_and_reads_numbers_as_texts_write_them() -> None:
    """P88, P90, P91, P92: null, a weight of 18,5 in a whole number, commas before decimals, a date of eight digits."""
    engine = Engine.load("qwen2.5-coder-1.5b", kv_tokens=8192)
    for name, least in (("order", 11), ("invoice", 11), ("note", 12)):
        text, fields = form_texts.FORMS[name]
        form = engine.fields(text, form_texts.schema_of(name))
        wrong = form_texts.wrong(name, form.value)
        assert len(fields) - len(wrong) >= least, wrong
        if name == "invoice":
            assert not {"date", "paper_price", "paint_price", "total", "weight_kg"} & set(wrong)
        elif name == "note":
            assert not {"key_code", "owner_phone", "lift"} & set(wrong)


def test_with_packed_weights_a_field_has_the_same_tokens_alone() -> None:
    engine = Engine.load("smollm2-135m", kv_tokens=4096)
    at_once, alone = (fill(engine, workers=rows, confidence=True) for rows in (None, 1))
    assert at_once.answer == alone.answer
    assert filled(at_once).confidence == filled(alone).confidence
