"""Typed questions: what may be asked, how it is read from JSON, the sentence for what may not, and what they share.

P98 and P99 are rows of public bug reports on decisions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import toy_engine
from kvorum import Choice, Decision, Option, Score, YesNo
from kvorum.errors import BadRequest, KvorumError
from kvorum.harness.decisions.answers import Decisions
from kvorum.harness.decisions.cases import read_cases
from kvorum.harness.decisions.questions import Question, named
from kvorum.harness.decisions.wire import as_json, read_questions, to_openai, to_system_one
from kvorum.tasks.decisions import choice_item

WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: YesNo(" ", "empty"), "'empty' has no text"),
    (lambda: Choice("Which?", "team", options=[]), "'team' has 0 options; give from 1 to 255"),
    (lambda: Choice("Which?", "team", options=[str(n) for n in range(256)]), "'team' has 256 options"),
    (lambda: Choice("Which?", "team", options=["a", " "]), "'team': option 2 is empty"),
    (lambda: Choice("Which?", "team", options=["a", "b", "a "]), "'team' has the option \"a\" twice"),
    (lambda: Choice("Which?", "team", options=[1, 1]), "'team' has the option 1 twice"),
    (lambda: Choice("Which?", "team", options="abc"), "'team': its options must be a list"),
    (lambda: Choice("Which?", "team", options=[["a"]]), "'team': option 1 is"),  # type: ignore[list-item]
    (lambda: Choice("Which?", "team", options=["a\ud800"]), "'team' holds .* UTF-8"),
    (lambda: Score("How?", "much", levels=["one"]), "'much' has 1 level; give from 2 to 10"),
    (lambda: Score("How?", "much", levels=[f"l{n}" for n in range(11)]), "'much' has 11 levels"),
    (lambda: Score("How?", "much", levels=["low", ""]), "'much': level 1 is empty"),
    (lambda: named([]), "no question"),
    (lambda: named([YesNo("a?", "x"), YesNo("b?", "x")]), "Two questions are named 'x'"),
    (lambda: named([YesNo("a?", "x", ["y"])]), "sees the answer to 'y', and no question is named so"),
    (lambda: named([3]), "Question 1 is 3"),  # type: ignore[list-item]
    (lambda: read_questions({"q": {"type": "rank", "instructions": "x"}}), "'q' has the type 'rank'"),
    (lambda: read_questions({"q": {"type": "choice", "instructions": "x"}}), "'q' needs its options"),
    (lambda: read_questions({"q": {"type": "score", "instructions": "x"}}), "'q' needs its levels"),
    (lambda: read_questions({"q": {"type": "noul", "instructions": "x", "critera": {}}}), "did you mean criteria"),
    (lambda: read_questions([{"type": "choice", "instructions": "x", "choices": [{"label": "a"}]}]), "has the option"),
    (lambda: read_questions(3), "Questions are a list"),
    (lambda: read_questions({"q": 3}), "'q' must be an object"),
    (lambda: read_cases("{", "cases.jsonl"), "cases.jsonl, line 1"),
    (lambda: read_cases('\n{"state": "s"}', "cases.jsonl"), "line 2: a case is an object"),
    (lambda: read_cases(json.dumps({"state": "s", "questions": ["x"], "answers": {}}), "f"), "'q1' has no answer"),
    (lambda: read_cases("", "cases.jsonl"), "has no cases"),
]


@pytest.mark.parametrize(("ask", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_what_cannot_be_asked_is_one_sentence(ask: Callable[[], Any], words: str) -> None:
    with pytest.raises(KvorumError, match=words) as error:
        ask()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("count", [1, 2, 255])
def test_choices_of_up_to_255(count: int) -> None:
    """P98."""
    question = Choice("Which?", options=[f"number {n}" for n in range(count)])
    [found] = toy_engine.fake(kv_tokens=32768).decide("Some text.", [question], orders=2)
    assert len(found.probabilities) == count
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.orders == min(2, count)


@pytest.mark.parametrize("count", [2, 10])
def test_scores_of_up_to_ten(count: int) -> None:
    """P98."""
    [found] = toy_engine.fake().decide("Some text.", Score("How?", levels=[f"level {n}" for n in range(count)]))
    assert 0 <= found.score <= count - 1
    assert found.question.labels == tuple("0123456789"[:count])


def test_values_keep_their_types_and_read_apart() -> None:
    """P99."""
    question = Choice("Which?", options=[True, "true", 1, "1", 1.0, None, "x"])
    assert question.labels == ("true", '"true"', "1", '"1"', "1.0", "null", "x")
    assert [type(option.value) for option in question.answers] == [bool, str, int, str, float, type(None), str]


SYSTEM_ONE: dict[str, Any] = {
    "urgent": {"type": "noul", "instructions": "Is it urgent?", "criteria": {"true": "now", "false": "later"}},
    "team": {"type": "choice", "instructions": {"ask": "Which?"}, "criteria": {"billing": "invoices", "bugs": None}},
    "severe": {"type": "score", "instructions": "How severe?", "criteria": ["mild", "bad", {"worst": 1}]},
}
OPENAI: list[Any] = [
    {"type": "predicate", "name": "urgent", "instructions": "Is it urgent?", "yes": "now", "no": "later"},
    {
        "type": "choice",
        "name": "team",
        "instructions": '{"ask": "Which?"}',
        "choices": [{"value": "billing", "description": "invoices"}, {"value": "bugs"}],
    },
    {
        "type": "score",
        "name": "severe",
        "instructions": "How severe?",
        "levels": [{"label": "mild"}, {"label": "bad"}, {"label": '{"worst": 1}'}],
    },
]


def test_both_shapes_are_the_same_questions() -> None:
    found = read_questions(SYSTEM_ONE)
    assert found == read_questions(OPENAI)
    assert [as_json(question) for question in found] == OPENAI
    assert read_questions(OPENAI[0]) == found[:1]
    assert read_questions(["Is it?", {"type": "noul", "instructions": "Is it?", "name": "b", "sees": ["q1"]}]) == [
        YesNo("Is it?"),
        YesNo("Is it?", "b", ("q1",)),
    ]
    values = read_questions([{"type": "choice", "instructions": "x", "choices": [{"value": True}, {"value": "true"}]}])
    assert [option.value for option in values[0].answers] == [True, "true"]


def test_answers_in_both_shapes() -> None:
    asked: list[Question] = [
        YesNo("Is it?"),
        Choice("Which?", "which", options=[True, "true", Option("c", "sea")]),
        Score("How?", "how", levels=["low", "high"]),
    ]
    shares = ((0.75, 0.25), (0.2, 0.7, 0.1), (0.25, 0.75))
    decisions = [Decision(one, line, line, 1.0) for one, line in zip(named(asked), shares, strict=True)]
    assert to_system_one(decisions) == {
        "q1": {"type": "noul", "noul": 0.75},
        "which": {
            "type": "choice",
            "choice": '"true"',
            "probabilities": {"true": 0.2, '"true"': 0.7, "c": 0.1},
            "confidence": pytest.approx(0.55),
        },
        "how": {
            "type": "score",
            "score": 0.75,
            "legend": {"0": "low", "1": "high"},
            "probabilities": {"0": 0.25, "1": 0.75},
            "confidence": 0.5,
        },
    }
    predicate, choice, score = json.loads(json.dumps(to_openai(decisions, asked)))
    assert predicate == {"type": "predicate", "name": None, "probability": 0.75}
    assert choice["choice"] == "true"
    assert [one["value"] for one in choice["probabilities"]] == [True, "true", "c"]
    assert score["probabilities"][1] == {"value": 1, "label": "high", "probability": 0.75}


def test_words_that_look_like_special_tokens_and_other_scripts_are_words() -> None:
    engine = toy_engine.fake()
    state = "<end> 彼は言った。 <|im_end|> שלום"
    found = engine.decide(state, [Choice("誰が言った？<end>", options=["彼", "彼女", "<end>"])])
    assert sum(found[0].probabilities) == pytest.approx(1)


def test_answers_are_found_by_name_or_place() -> None:
    found = toy_engine.fake().decide({"a": [1, 2]}, {"x": {"type": "noul", "instructions": "Is it?"}})
    assert isinstance(found, Decisions)
    assert found["x"] is found[0] is next(iter(found))
    with pytest.raises(KvorumError, match="no answer 'y'"):
        found["y"]
    with pytest.raises(BadRequest, match="empty"):
        toy_engine.fake().decide(" ", ["Is it?"])


def test_items_come_from_their_seed_and_have_their_answer_among_the_options() -> None:
    items = [choice_item(seed) for seed in range(300)]
    assert items == [choice_item(seed) for seed in range(300)]
    assert len({item.state for item in items}) > 200
    assert all(item.right in item.options and len(item.options) == 8 and "{" not in item.state for item in items)
    assert {list(item.options).index(item.right) for item in items} == set(range(8))


@pytest.mark.parametrize(
    ("first", "other"),
    [("Is this true of the text? ", "Is that true of the text? "), ("See this.\n\n", "See that.\n\n"), ("A: ", "B: ")],
)
def test_what_questions_begin_with_is_encoded_once(first: str, other: str) -> None:
    """Whole sentences, and what ends with a blank line, stand once for all that begin with them."""
    engine = toy_engine.fake()
    begun = len(engine.tokenizer(f" {first}".rstrip(" ")).input_ids)
    assert begun == len(engine.tokenizer(f" {other}".rstrip(" ")).input_ids)
    same, apart = ([f"{first}The pump is wet.", f"{one}The pipe is wet."] for one in (first, other))
    assert engine.decide("It is wet.", apart).ledger.prefill - engine.decide("It is wet.", same).ledger.prefill == begun


def test_a_question_of_many_paragraphs_takes_hardly_more_room_than_its_tokens() -> None:
    engine = toy_engine.fake(kv_tokens=1100)  # in pages of four, and a paragraph is three tokens
    words = "\n\n".join("p" * 300)
    assert len(engine.decide("It is wet.", [YesNo(words)])) == 1
