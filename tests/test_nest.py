"""Programs inside programs: what stands before them, draws of their own, one ledger, trace and budget, replay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Engine, Result, Run, Sampling, View, inside, program, programs
from kvorum.engine.row import CheckedRow
from kvorum.engine.tick_result import TickResult
from kvorum.errors import BadRequest
from kvorum.programs import REGISTRY
from kvorum.runs.program import Program
from kvorum.store.events import Event
from kvorum.store.traces import read

GREEDY = Sampling()
CREW = """workers: {Ann: You say yes.}
steps: {say: {who: Ann, ask: Well, says: {word: [yes, no]}}}
"""
SMALL: dict[str, dict[str, Any]] = {
    "network": {"message_tokens": 6, "answer_tokens": 6, "rounds": 1, "retries": 0},
    "consensus": {"proposal_tokens": 6, "vote_tokens": 6, "rounds": 1, "retries": 0},
    "roleplay": {"messages": 2, "message_tokens": 6},
    "relay": {"latent_steps": 2, "final_tokens": 3},
    "tree": {"tokens": 12, "step": "a"},
    "thread": {"levels": 1, "chars": 12, "width": 2, "final_tokens": 3},
    "hogwild": {"final_tokens": 3, "ends": "line"},
    "solo": {"final_tokens": 3},
    "vote": {"final_tokens": 3},
    "plain": {},
    "agent": {"tokens": 6, "calls": 1},
    "crew": {"tokens": 40, "crew": CREW},
    "async_reasoning": {"every": 5, "think": 9, "final_tokens": 3},
    "branch": {"tokens": 4, "final_tokens": 3},
    "patch": {"documents": {"a": "One.", "b": "Two, as it is."}, "first": 3, "tokens": 4},
    "ask": {"questions": ["How many?"], "tokens": 4},
    "outline": {"tokens": 4, "outline_tokens": 24, "least": 2, "sections": 2},
    "decide": {},
    "fields": {"tokens": 4},
    "ladder": {"tokens": 4},
    "team_ladder": {"tokens": 4},
}
ALL: dict[str, tuple[Program, dict[str, Any]]] = {
    name: (found, SMALL.get(name, {})) for name, found in REGISTRY.items()
}
ALL |= {
    "branch of asks": (
        programs.branch,
        {"leaf": "ask", "leaf_params": SMALL["ask"], "workers": 2, "tokens": 4, "final_tokens": 3},
    ),
    "outline of votes": (
        programs.outline,
        SMALL["outline"] | {"leaf": "vote", "leaf_params": {"workers": 2, "final_tokens": 3}},
    ),
}
"""And some that hold others themselves."""


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    given = getattr(request.node, "callspec", None)
    return toy_engine.suited("" if given is None else given.params.get("guest", ""))


@program("host", "lets another program work behind some words")
async def host(run: Run, *, guest: str = "solo", words: str = "", count: int = 1) -> str | None:
    before = run.block("before")
    if words:
        await run.prefill(View(before), run.encode(words))
    found = await asyncio.gather(
        *(inside(run, View(before), ALL[guest][0], name=f"{at}", **ALL[guest][1]) for at in range(count))
    )
    return "|".join(str(answer) for answer in found)


def spoken(result: Result) -> list[tuple[str, int]]:
    """(worker, token) of every pick; of workers inside, their own names."""
    ticks = [event for event in result.trace.events if event["event"] == "tick"]
    return [(line["worker"].split("/")[-1], line["token"]) for tick in ticks for line in tick["rows"]]


def test_every_program_has_a_case() -> None:
    assert SMALL.keys() == REGISTRY.keys()


@pytest.mark.parametrize("guest", ALL)
def test_every_program_works_behind_any_view(engine: Engine, monkeypatch: pytest.MonkeyPatch, guest: str) -> None:
    """Every row of it sees what stands before, and behind nothing it does what it does alone."""
    options: dict[str, Any] = {"sampling": GREEDY, "budget": Budget(ticks=40)}
    alone = engine.run(ALL[guest][0], "What is 2+3?", **options, **ALL[guest][1])
    behind = engine.run(host, "What is 2+3?", guest=guest, **options)
    if guest != "consensus":  # whose temperatures are its own: inside, its draws are others
        assert spoken(behind) == spoken(alone)
        assert (behind.ledger.decoded, behind.ledger.latent) == (alone.ledger.decoded, alone.ledger.latent)
        assert behind.answer == str(alone.answer)
    whole = engine.executor.run
    first: list[tuple[str, int]] = []

    def tick(rows: Sequence[CheckedRow], hidden: bool = False) -> TickResult:
        first.extend((row.view.blocks[0].name, len(row.view.items[0])) for row in rows)
        return whole(rows, hidden)

    monkeypatch.setattr(engine.executor, "run", tick)
    engine.run(host, "What is 2+3?", guest=guest, words="All is well.", **options)
    assert first[0] == ("before", 0)
    assert set(first[1:]) == {("before", 12)}
    assert len(first) > 2


def test_two_levels_show_both(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    @program("middle", "another host")
    async def middle(run: Run) -> str | None:
        block = run.block("middle")
        await run.prefill(View(block), run.encode("two"))
        return await inside(run, View(block), programs.solo, name="in", final_tokens=3)

    @program("outer", "the first host")
    async def outer(run: Run) -> str | None:
        block = run.block("outer")
        await run.prefill(View(block), run.encode("one"))
        return await inside(run, View(block), middle, name="mid")

    whole, seen = engine.executor.run, []

    def tick(rows: Sequence[CheckedRow], hidden: bool = False) -> TickResult:
        seen.append([block.name for block in rows[0].view.blocks])
        return whole(rows, hidden)

    monkeypatch.setattr(engine.executor, "run", tick)
    engine.run(outer, "p", budget=Budget(ticks=9), sampling=GREEDY)
    assert seen[0] == ["outer"]
    assert seen[1] == ["outer", "mid/middle"]
    assert seen[-1] == ["outer", "mid/middle", "mid/in/Alice"]


def test_those_inside_share_ticks_and_draw_for_themselves(engine: Engine) -> None:
    warm = Sampling(temperature=1.0)
    result = engine.run(host, "p", count=3, sampling=warm, budget=Budget(decoded=30))
    said: dict[str, list[int]] = {}
    for event in result.trace.events:
        if event["event"] == "tick":
            for line in event["rows"]:
                said.setdefault(line["worker"], []).append(line["token"])
    assert set(said) == {"0/Alice", "1/Alice", "2/Alice"}
    assert len({tuple(tokens[:8]) for tokens in said.values()}) == 3
    assert result.answer is not None
    assert result.answer.count("|") == 2


@pytest.mark.parametrize("guest", ALL)
def test_a_replay_repeats_what_was_inside(engine: Engine, tmp_path: Any, guest: str) -> None:
    warm = Sampling(temperature=1.0)
    options: dict[str, Any] = {"guest": guest, "words": "so", "count": 2, "sampling": warm, "budget": Budget(ticks=60)}
    result = engine.run(host, "What is 2+3?", trace=tmp_path / "run.jsonl", **options)
    events = read(tmp_path / "run.jsonl")
    again = engine.run(host, "What is 2+3?", replay=events[: len(events) // 2], **options)
    assert again.differences == []
    assert spoken(again) == spoken(result)
    assert again.answer == result.answer


@pytest.mark.parametrize("ticks", [1, 2, 5, 11])
@pytest.mark.parametrize("guest", ALL)
def test_the_budget_is_the_outer_runs(engine: Engine, guest: str, ticks: int) -> None:
    result = engine.run(host, "What is 2+3?", guest=guest, words="so", budget=Budget(ticks=ticks))
    assert result.ledger.ticks <= ticks
    assert result.spent == "ticks" or result.answer is not None


@pytest.mark.parametrize(("before", "after"), [(40, 12), (12, 20)])
def test_a_budget_that_is_replaced_holds_inside_too(engine: Engine, before: int, after: int) -> None:
    """In its fourth tick the run gets another budget, which ends the program inside, neither sooner nor later."""
    held: list[Run] = []

    def listen(event: Event) -> None:
        if event["event"] == "tick" and event["n"] == 3:
            held[0].state.budget = Budget(ticks=after)

    options: dict[str, Any] = {"sampling": GREEDY, "control": held.append, "listener": listen}
    result = engine.run(host, "What is 2+3?", budget=Budget(ticks=before), **options)
    whole = engine.run(host, "What is 2+3?", budget=Budget(ticks=after), sampling=GREEDY)
    assert result.spent == "ticks"
    assert spoken(result) == spoken(whole)
    assert (result.ledger.ticks, result.answer) == (whole.ledger.ticks, whole.answer)
    assert result.ledger.ticks <= after


@pytest.mark.forward
def test_those_inside_and_outside_count_together() -> None:
    """Ticks, forwards and questions have one numbering; the outer run's ledger and tap are those of the run inside."""
    held: list[Run] = []

    async def ask() -> str:
        return "yes"

    @program("asking", "asks, ticks and asks again")
    async def asking(run: Run, *, deeper: bool = False) -> str | None:
        held.append(run)
        worker = run.workers[0]
        worker.view = View(run.block(worker.name))
        worker.feed(run.encode("so"))
        await run.outside("before", ask)
        await run.tick([worker])
        if deeper:
            await inside(run, worker.view, asking, name="in")
        await run.tick([worker])
        return await run.outside("after", ask)

    result = toy_engine.engine().run(asking, "p", deeper=True, budget=Budget(ticks=9), tap=1)
    events = result.trace.events
    ticks = [(event["n"], event["rows"][0]["worker"]) for event in events if event["event"] == "tick"]
    assert ticks == [(0, "Alice"), (1, "in/Alice"), (2, "in/Alice"), (3, "Alice")]
    assert [event["n"] for event in events if event["event"] == "outside"] == [0, 1, 2, 3]
    outer, inner = held
    assert inner.state is outer.state
    assert outer.owners.names == ["", "Alice", "in/Alice"]
    assert inner.block("x").name == "in/x"


def test_wrong_parameters_are_refused(engine: Engine) -> None:
    @program("wrong", "asks for what is not there")
    async def wrong(run: Run) -> str | None:
        return await inside(run, View(run.block("b")), programs.solo, name="x", speed=3)

    with pytest.raises(BadRequest, match="solo has no parameter 'speed'"):
        engine.run(wrong, "p")
    for given, words in (("[1]", "a JSON object"), ("{", "a JSON object")):
        with pytest.raises(BadRequest, match=words):
            engine.run(programs.tree, "p", leaf="solo", leaf_params=given)
