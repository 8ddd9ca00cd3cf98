"""What an engine, a run, a budget and a stream refuse to be given: one named error, and nothing is kept of it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2 import TemplateSyntaxError

import toy_engine
from families import build
from kvorum import Budget, Engine, Row, Sampling, Task, View, programs
from kvorum.errors import BadRequest, BadTrace, UnsupportedModel, VerifierError
from kvorum.runs.replay import Recording

MODEL = build("llama")


def new() -> Engine:
    return Engine(MODEL, kv_tokens=160, page_size=4)


@pytest.mark.parametrize(
    "options",
    [
        {"kv_tokens": 0},
        {"page_size": 0},
        {"prefill_chunk": 0},
        {"kv_tokens": 1.5},
        {"kv_tokens": "many"},
        {"kv_tokens": 10**15},
        {"kv_tokens": 10**30},
        {"page_size": 10**15},
    ],
)
def test_parameters_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        Engine(MODEL, **options)


def test_a_model_that_is_none() -> None:
    with pytest.raises(UnsupportedModel):
        Engine(torch.nn.Linear(2, 2))


BAD_RUNS: dict[str, dict[str, Any]] = {
    "no program": {"program": "solo"},
    "no task": {"task": 5},
    "task of a number": {"task": Task(5)},  # type: ignore[arg-type]
    "one name": {"workers": "Ann"},
    "half a worker": {"workers": 2.5},
    "numbers as names": {"workers": [1, 2]},
    "a name that breaks lines": {"workers": ["Ann\n"]},
    "a name that no file can hold": {"workers": ["caf\udce9"]},
    "a problem that no file can hold": {"task": "caf\udce9"},
    "a private part that no file can hold": {"task": Task("x", private={"Alice": "\ud800"})},
    "text that no file can hold": {"answer": "\ud800"},
    "budget": {"budget": 5},
    "sampling": {"sampling": 0.5},
    "seed": {"seed": "x"},
    "parameter": {"soon": 1},
    "whole": {"final_tokens": 1.5},
    "not finite": {"program": programs.consensus, "vote_temperature": float("nan")},
    "text": {"answer": []},
    "flag": {"program": programs.hogwild, "openings": "no"},
    "list": {"program": programs.relay, "private": "abc"},
    "mapping": {"program": programs.hogwild, "other_private": 5},
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_run_that_cannot_be(case: str) -> None:
    given = {"program": programs.solo, "task": "x", **BAD_RUNS[case]}
    engine = new()
    free = engine.pool.free
    with pytest.raises(BadRequest) as raised:
        engine.run(given.pop("program"), given.pop("task"), **given)
    assert str(raised.value).count(".") >= 1
    assert engine.pool.free == free


def test_who_gives_a_programs_name_is_told_how_to_find_it() -> None:
    with pytest.raises(BadRequest, match=r"must be a Program, not 'solo'; kvorum\.programs\.find\(NAME\) gives one"):
        new().run("solo", "x")  # type: ignore[arg-type]


class Broken:
    """A tokenizer whose template is damaged."""

    chat_template = "{{"
    eos_token_id = None

    def apply_chat_template(self, *_: Any, **__: Any) -> str:
        raise TemplateSyntaxError("unexpected 'end of template'", 1)


def test_a_trace_in_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before the model does anything; no folder is made."""
    engine, ticks = toy_engine.fake(), list[Any]()
    monkeypatch.setattr(engine.executor, "run", lambda rows, **options: ticks.append(rows))
    with pytest.raises(BadRequest, match=r"there is no folder .*none; make it first"):
        engine.run(programs.solo, "x", trace=tmp_path / "none" / "run.jsonl")
    assert ticks == list(tmp_path.iterdir()) == []


def never(answer: str | None) -> float:
    raise StopIteration("no")


def test_what_goes_wrong_in_a_verifier_is_named_as_the_verifiers() -> None:
    """StopIteration above all, which Python turns into something else where a coroutine lets it out."""
    budget = Budget(ticks=6)
    for program in (programs.solo, programs.tree):
        params: dict[str, Any] = {"script": "x", "tokens": 4} if program is programs.tree else {"final_tokens": 2}
        verifiers: tuple[tuple[Any, str], ...] = (
            (never, "StopIteration: no$"),
            (lambda answer: None, "TypeError"),
            (lambda answer: Budget(ticks=0), "BadRequest: A budget of 0 ticks"),  # kvorum's own, used in a verifier
            (lambda answer: "good", "could not convert string to float: 'good'"),
        )
        for verify, found in verifiers:
            with pytest.raises(VerifierError, match=r"^The task's verifier failed on the answer ") as error:
                toy_engine.fake().run(program, Task("What?", verify=verify), budget=budget, seed=0, **params)
            assert re.search(found, str(error.value))
            if verify is never:
                assert "test_misuse.py" in str(error.value)
                assert "in never" in str(error.value)
    assert Task("What?", verify=lambda answer: 0.5).score(None) == 0.5
    assert Task("What?").score("x") is None


def test_a_verifier_is_asked_of_each_leaf_and_of_the_answer() -> None:
    asked: list[str | None] = []

    def verify(answer: str | None) -> float:
        asked.append(answer)
        return 1.0

    budget = Budget(ticks=99)
    toy_engine.fake().run(programs.tree, Task("?", verify=verify), script="\\boxed{7}", budget=budget, tokens=20)
    assert asked == ["7"] * 7  # six leaves, and the answer
    asked.clear()
    toy_engine.fake().run(programs.solo, Task("?", verify=verify), budget=Budget(ticks=4), final_tokens=2)
    assert len(asked) == 1


def test_a_damaged_chat_template_is_one_sentence() -> None:
    engine = Engine(MODEL, Broken(), kv_tokens=160, page_size=4)
    with pytest.raises(BadRequest, match="chat template cannot be used: unexpected"):
        engine.run(programs.solo, "x")


@pytest.mark.parametrize(
    "limits", [{"ticks": 0}, {"ticks": 1.5}, {"ticks": "x"}, {"ticks": True}, {"seconds": float("inf")}]
)
def test_a_budget_that_cannot_be(limits: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        Budget(**limits)


@pytest.mark.parametrize("options", [{"max_tokens": 2.5}, {"max_tokens": 0}, {"top": -1}])
def test_a_stream_that_cannot_be(options: dict[str, Any]) -> None:
    engine = new()
    a = engine.block()
    engine.forward([Row(View(a), ids=[3] * 5)])

    async def go() -> None:
        async for _ in engine.decode(View(a), **options):
            raise AssertionError("a token")

    with pytest.raises(BadRequest):
        asyncio.run(go())
    assert len(a) == 5


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": None},
        {"temperature": float("nan")},
        {"top_k": 1.5},
        {"top_p": True},
        {"min_p": "x"},
        {"seed": "x"},
        {"banned": 5},
        {"banned": "abc"},
        {"banned": ["x"]},
        {"banned": [-1]},
    ],
)
def test_sampling_of_another_kind(options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=next(iter(options))):
        Sampling(**options)


def test_a_row_is_no_list_and_a_number_no_stop() -> None:
    engine = new()
    block = engine.block()
    with pytest.raises(BadRequest, match="list of rows"):
        engine.forward(Row(View(block), ids=[1]))  # type: ignore[arg-type]
    engine.forward([Row(View(block), ids=[1])])

    async def write() -> None:
        async for _ in engine.decode(View(block), stop=[5]):  # type: ignore[list-item]
            pass

    with pytest.raises(BadRequest, match="stop"):
        asyncio.run(write())
    assert len(block) == 1


@pytest.mark.parametrize("ways", [["x"], [2.5], [None, "2"]])
def test_a_tree_branches_in_whole_numbers(ways: list[Any]) -> None:
    with pytest.raises(BadRequest, match="whole number"):
        new().run(programs.tree, "p", method="spo", branching=ways)


@pytest.mark.parametrize("events", [[{"a": 1}], ["x"], [{"event": "tick"}]])
def test_a_replay_of_what_is_no_trace(events: list[Any]) -> None:
    with pytest.raises(BadTrace, match="Event 0 of the replay"):
        Recording(events)


@pytest.mark.parametrize("replay", [5, "trace.jsonl", {"event": "start"}, b"x"])
def test_a_replay_of_no_list(replay: Any) -> None:
    with pytest.raises(BadTrace, match=f"A replay is a list .* {type(replay).__name__}"):
        new().run(programs.solo, "x", replay=replay)
