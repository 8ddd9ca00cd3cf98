"""No run of any program spends more than its budget, whatever the limits, and what a closing costs is set aside in it.

All registered programs under random budgets on the fake engine, steered and nested ones too. Seconds may be passed by
one tick. Traces of before version 3, whose closings went beyond the budget, replay as they did (older formats).
Not covered: what forced answers are made of (test_hogwild.py).
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toy_engine
from kvorum import Budget, Engine, Result, Run, Sampling, View, program, programs
from kvorum.engine.budget import Ledger
from kvorum.harness.answers import KINDS, closing
from kvorum.programs import REGISTRY
from kvorum.runs.spending import Purse, Spender, Spent
from kvorum.runs.start import inside
from kvorum.runs.steering import Command
from kvorum.runs.worker import Worker

LIMITS = ("ticks", "decoded", "prefill", "tokens", "latent")


@cache
def engine() -> Engine:
    return toy_engine.fake(kv_tokens=262144, page_size=16, prefill_chunk=128)


@cache
def tiny() -> Engine:
    """For latent steps, and tokens that deviate, which need weights."""
    return toy_engine.engine(kv_tokens=32768, page_size=16, prefill_chunk=128)


@program("nesting", "three of a program at once behind what was written")
async def nesting(run: Run, *, guest: str = "solo", answer: str = "boxed") -> str | None:
    worker, size = run.workers[0], min(2, REGISTRY[guest].most_workers or 2)
    worker.view = View(run.block(worker.name))
    worker.feed(run.encode("so"))
    found: list[str | None] = []
    with run.work(closing(run, KINDS["boxed"], 3)):
        await run.tick([worker])
        found = await asyncio.gather(
            *(inside(run, worker.view, REGISTRY[guest], name=f"{guest}{at}", workers=size) for at in range(3))
        )
    return next((answer for answer in found if answer), None)


NEEDED: dict[str, dict[str, Any]] = {
    "fields": {"schema": '{"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}}}'},
    "decide": {
        "questions": [{"type": "noul", "instructions": f"Is it {n}?"} for n in range(9)]
        + [{"type": "choice", "instructions": "Which?", "choices": [{"value": n} for n in range(4)], "sees": ["q1"]}],
        "orders": 3,
        "prior": True,
    },
    "patch": {"documents": {"note": "Two and three.", "letter": "Four and five. " * 3}, "first": 6, "tokens": 9},
    "ask": {"documents": {"note": "Two and three. " * 9}, "questions": ["How many?", "Why?", "Who?"], "tokens": 9},
}
ALL: dict[str, tuple[Any, dict[str, Any]]] = {name: (found, NEEDED.get(name, {})) for name, found in REGISTRY.items()}
ALL |= {f"nesting {name}": (nesting, {"guest": name}) for name in ("vote", "relay", "hogwild", "thread")}
ALL |= {
    "hogwild text": (REGISTRY["hogwild"], {"channel": "text"}),
    "hogwild reencode": (REGISTRY["hogwild"], {"final": "reencode"}),
    "relay words": (REGISTRY["relay"], {"think": "text", "handover": "both"}),
    "thread forks": (REGISTRY["thread"], {"siblings": "forks"}),
    "tree segments": (REGISTRY["tree"], {"method": "treepo", "segment": 8}),
    "tree of votes": (REGISTRY["tree"], {"leaf": "vote", "tokens": 8}),
    "branch of asks": (
        REGISTRY["branch"],
        {"leaf": "ask", "leaf_params": {"questions": ["Why?", "Who?"], "tokens": 5}},
    ),
    "outline of votes": (
        REGISTRY["outline"],
        {"leaf": "vote", "leaf_params": {"workers": 2}, "outline_tokens": 24, "least": 2, "sections": 2},
    ),
    "patch most": (REGISTRY["patch"], NEEDED["patch"] | {"reread": "most", "compare": True}),
}


def play(name: str, budget: Budget, seed: int, steer: int = 0) -> Result:
    found, params = ALL[name]
    workers = min(4, found.most_workers or 4)

    def control(run: Run) -> None:
        if not steer:
            return
        tick = run.tick

        async def then(*args: Any, **more: Any) -> None:
            await tick(*args, **more)
            if run.state.ticks == steer:
                run.commands.append(Command("say", run.workers[0].name if run.workers else "", "Look here. " * 9))
                if found.joins and not params:
                    run.commands.append(Command("join", "Zoe"))

        run.tick = then  # type: ignore[method-assign]

    return (tiny() if "relay" in name or name == "patch most" else engine()).run(
        found,
        "What is 2 + 3?",
        workers=workers,
        budget=budget,
        sampling=Sampling(1.0),
        seed=seed,
        control=control,
        **params,
    )


FORWARD = pytest.mark.forward
LATENT = {"relay", "nesting relay"}
"""These read the weights of embeddings, which other processes do not give."""
budgets = st.fixed_dictionaries(
    {},
    optional={
        "ticks": st.integers(1, 60),
        "decoded": st.integers(1, 150),
        "prefill": st.integers(1, 900),
        "tokens": st.integers(1, 1200),
        "latent": st.integers(1, 30),
    },
).filter(lambda limits: {"ticks", "decoded", "tokens"} & limits.keys())


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in LATENT else FORWARD) for name in ALL])
@settings(max_examples=6)
@given(limits=budgets, seed=st.integers(0, 9), steer=st.sampled_from((0, 0, 2, 5)))
def test_no_program_spends_more_than_its_budget(name: str, limits: dict[str, int], seed: int, steer: int) -> None:
    result = play(name, Budget(**limits), seed, steer)
    for entry, limit in limits.items():
        assert getattr(result.ledger, entry) <= limit, entry
    if result.outcome in ("forced", "cut", "none"):
        assert result.spent in (None, *limits)


@pytest.mark.parametrize("name", ["solo", "vote", "hogwild", "relay words"])
def test_the_closing_question_has_its_ticks_within_the_budget(name: str) -> None:
    """Nobody ends a text or gives an answer: the work ends when the question's ticks are left, which it then has."""
    found, params = ALL[name]
    params = {**params, "final_tokens": 7}
    options: dict[str, Any] = {
        "workers": 1 if name == "solo" else 3,
        "sampling": Sampling(1.0, banned=[265]),
    }
    result = toy_engine.fake().run(found, "Go.", budget=Budget(ticks=60), seed=1, **options, **params)
    assert (result.outcome, result.spent) == ("forced", "ticks")
    assert 53 < result.ledger.ticks <= 60


@pytest.mark.forward
def test_seconds_are_passed_by_one_tick_at_most() -> None:
    result = play("hogwild", Budget(seconds=0.15), 0)
    ticks = [event for event in result.trace.events if event["event"] in ("tick", "forward")]
    assert result.spent == "seconds"
    assert [event["seconds"] < 0.15 for event in ticks[:-1]] == [True] * (len(ticks) - 1)


# -- what is set aside ---------------------------------------------------------------------------------------------


def spend(spender: Spender, purse: Purse, **cost: int) -> None:
    made = Ledger(**cost)
    with spender.allowance.spending(made):
        purse.ledger.add(made)


def test_a_share_is_set_aside_and_spent_behind_the_work() -> None:
    purse = Purse(Budget(ticks=30, tokens=100))
    run, ticks = Spender(purse), 0
    with run.work(Ledger(ticks=64, decoded=5)):
        while not run.spent:
            spend(run, purse, ticks=1, decoded=1)
            ticks += 1
    assert [ticks, run.spent, run.allowance.ended] == [20, None, "ticks"]
    for _ in range(10):
        spend(run, purse, ticks=1, decoded=1)
    with pytest.raises(Spent):
        spend(run, purse, ticks=1, decoded=1)
    assert purse.ledger.ticks == 30
    assert run.spent == "ticks"


def test_what_does_not_fit_ends_the_work_and_costs_nothing() -> None:
    purse = Purse(Budget(tokens=10))
    run = Spender(purse)
    with run.work(Ledger(prefill=2)):
        spend(run, purse, prefill=6)
        spend(run, purse, prefill=3)
    assert purse.ledger.tokens == 6, "8 are for the work"
    assert run.allowance.ended == "tokens"
    spend(run, purse, prefill=4)


def test_nobody_spends_what_another_run_has_set_aside() -> None:
    purse = Purse(Budget(ticks=30))
    first, second = Spender(purse), Spender(purse)
    with first.work(Ledger(ticks=4)), second.work(Ledger(ticks=4)):
        while not first.spent:
            spend(first, purse, ticks=1)
        assert purse.ledger.ticks == 22
        assert second.spent
    spend(second, purse, ticks=2)
    for _ in range(4):
        spend(first, purse, ticks=1)
    with pytest.raises(Spent):
        spend(first, purse, ticks=1)
    second.allowance.release()
    spend(first, purse, ticks=2)
    assert purse.ledger.ticks == 30


def test_what_is_under_way_counts() -> None:
    purse = Purse(Budget(ticks=2))
    first, second = Spender(purse), Spender(purse)
    one = Ledger(ticks=1)
    with first.allowance.spending(one), second.allowance.spending(one), pytest.raises(Spent):
        spend(first, purse, ticks=1)
    assert purse.left("ticks", 2) == 2


def test_a_worker_that_is_told_more_than_is_left_is_not_fed_it() -> None:
    held: list[Worker] = []

    def control(run: Run) -> None:
        held.append(run.workers[0])
        run.commands.append(Command("say", "Alice", "word " * 500))

    result = engine().run(programs.solo, "Go.", budget=Budget(tokens=400), control=control, final_tokens=5)
    assert result.ledger.tokens <= 400
    assert result.spent == "tokens"
    assert held[0].ids
