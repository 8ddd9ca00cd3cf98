"""Grammars in runs: pieces that workers write side by side, a run's own grammar, resuming, replaying, failures.

On the toy model and the fake backend. What a matcher lets through and how ``decode`` follows it: ``test_grammars``.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import toy_engine
from grammar_texts import END, FITS, KINDS, take
from kvorum import Budget, Engine, Grammar, Run, Sampling, View, program
from kvorum.errors import BadRequest
from kvorum.harness.pieces import Piece, write
from kvorum.runs.injection import Injection

pytestmark = pytest.mark.forward


@pytest.fixture(scope="module", params=["fake", "model"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return toy_engine.fake() if request.param == "fake" else toy_engine.engine()


@program("questions", "a few workers that each write pieces under grammars")
async def questions(run: Run, *, forced: bool = True) -> str:
    shared = run.block("document")
    await run.prefill(View(shared), run.encode("Ann is 7 years old."))
    shared.seal()
    texts = []
    workers = [run.add_worker(f"q{number}") for number in range(3)]
    for asked in (["Who: ", "Age: ", "Free: "], ["Again: ", "More: ", "Last: "]):
        pieces = []
        for worker, words, grammar in zip(workers, asked, [KINDS["json"], KINDS["regex"], None], strict=True):
            worker.view, worker.pending, worker.picked = View(shared, run.block(worker.name)), [], 0
            worker.feed(run.encode(words))
            pieces.append(Piece(worker, Sampling(1.0, grammar=grammar), tokens=40 if grammar else 8, forced=forced))
        await write(run, pieces)
        texts += [[piece.text, piece.finish] for piece in pieces]
    return json.dumps(texts)


def test_workers_write_pieces_under_grammars(engine: Engine) -> None:
    result = engine.run(questions, "t")
    pieces = json.loads(result.answer or "")
    for at, (text, finish) in enumerate(pieces):
        if at % 3 == 2:
            assert finish in ("length", "end")
            continue
        assert finish == "grammar"
        assert FITS["regex"].fullmatch(text) if at % 3 else set(json.loads(text)) == {"name", "age"}
    slow = engine.run(questions, "t", forced=False)
    assert slow.answer == result.answer
    assert slow.ledger.ticks > result.ledger.ticks
    rows = [row for event in result.trace.events if event["event"] == "tick" for row in event["rows"]]
    assert any('"age": ' in row.get("given", "") for row in rows)


def test_a_run_with_grammars_resumes_and_replays(engine: Engine) -> None:
    """From every tick on: the same tokens, and a matcher that follows what was recorded."""
    whole = engine.run(questions, "t", seed=4)
    events = whole.trace.events
    for cut in range(1, len(events) + 1, 3):
        again = engine.run(questions, "t", seed=4, replay=events[:cut])
        assert again.answer == whole.answer
        assert ticks(again) == ticks(whole)
        assert not again.differences


def ticks(result: Any) -> list[Any]:
    return [event["rows"] for event in result.trace.events if event["event"] == "tick"]


@program("writer", "one worker that writes texts to their ends")
async def writer(run: Run, *, texts: int = 2) -> str:
    worker = run.workers[0]
    worker.view = View(run.block(worker.name))
    worker.feed(run.encode("Go. "))
    ended = 0
    while not run.spent and ended < texts:
        await run.tick([worker])
        ended += worker.ids[-1] in run.ends
    return worker.text


def test_the_sampling_of_a_run_has_a_grammar(engine: Engine) -> None:
    """Behind each end token it begins anew; the trace has it, and a run from the trace is the same."""
    result = engine.run(writer, "t", sampling=Sampling(1.0, grammar=KINDS["compact"]), budget=Budget(ticks=200))
    first, second = [json.loads(part + "}") for part in (result.answer or "").split("}")[:2]]
    assert set(first) == set(second) == {"name", "age"}
    start = json.loads(json.dumps(result.trace.events[0]))
    sampling = Sampling(**start["sampling"], grammar=Grammar(**start["grammar"]))
    assert sampling.grammar == KINDS["compact"]
    again = engine.run(writer, "t", sampling=sampling, budget=Budget(ticks=200), replay=result.trace.events[:9])
    assert again.answer == result.answer
    plain = engine.run(writer, "t", budget=Budget(ticks=2))
    assert '"grammar"' not in json.dumps(plain.trace.events[0])


def test_a_grammar_that_cannot_be_used_is_refused_before_any_token(engine: Engine) -> None:
    engine.ledger.ticks = 0
    with pytest.raises(BadRequest, match="look-around"):
        engine.run(writer, "t", sampling=Sampling(grammar=Grammar.regex("(?=a)b")))
    with pytest.raises(BadRequest, match="look-around"):
        asyncio.run(take(engine, Grammar.regex("(?=a)b")))
    assert engine.ledger.ticks == 0
    assert len(asyncio.run(take(engine, None, max_tokens=3))) == 3


def test_a_worker_that_fails_leaves_the_others_their_tokens() -> None:
    engine = toy_engine.fake()
    everything = tuple(range(END + 1))

    @program("failing", "one of three workers has nothing left to pick")
    async def failing(run: Run) -> str:
        pieces = []
        for number in range(3):
            worker = run.add_worker(f"w{number}")
            worker.view = View(run.block(worker.name))
            worker.feed(run.encode("x"))
            banned = everything if number == 1 else ()
            pieces.append(Piece(worker, Sampling(1.0, grammar=KINDS["regex"], banned=banned), forced=False))
        await write(run, pieces)
        return json.dumps([[piece.text, piece.finish, str(piece.worker.failed)] for piece in pieces])

    result = engine.run(failing, "t")
    first, second, third = json.loads(result.answer or "")
    assert second[:2] == ["", "failed"]
    assert "banned" in second[2]
    for text, finish, _ in (first, third):
        assert finish == "grammar"
        assert FITS["regex"].fullmatch(text)
    again = engine.run(failing, "t", replay=result.trace.events)
    assert again.answer == result.answer


def test_injected_words_and_a_grammar(engine: Engine) -> None:
    """A mute keeps to the grammar, too."""
    mute = [Injection("mute", "Alice", text="a")]
    result = engine.run(
        writer, "t", sampling=Sampling(1.0, grammar=Grammar.regex("[ab]{4}")), inject=mute, budget=Budget(ticks=40)
    )
    assert set(result.answer or "") == {"b"}
