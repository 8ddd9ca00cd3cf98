"""A thinker and a writer, held against dense forwards in float64.

Covers what every row sees, in both layouts, for thoughts encoded again and for a blind writer, judged by the dense
oracle from a second account made of the rules alone, ticks with both streams and the probe's rows among them; every
token of twenty random scripts on a vocabulary of bytes, where Yes and No take several tokens; and twenty scripts
against a slow loop over dense forwards (``thinking_loop``) that computes tokens and answers on its own: both layouts,
live thoughts and thoughts encoded again. Not covered: words said meanwhile.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Engine, Result, Sampling, programs
from kvorum.sampling.reference import pick
from kvorum.sampling.sampling import Draw
from kvorum.store.events import note_data
from oracle import Items, widen
from test_async_reasoning import solve
from test_compositions import Judge
from thinking_loop import PROBLEM, Loop, Seen, tokenizer

TICKS, LAST, EVERY = 40, 4, 4


@cache
def words() -> Any:
    """A vocabulary in which Yes and No are a token each."""
    return tokenizer()


def engine(seed: int) -> Engine:
    """One of the toys, which answer Yes now and then."""
    return Engine(
        widen(toy_engine.model(seed=seed, vocab=len(words()))),
        words(),
        kv_tokens=2048,
        page_size=4,
        attention="reference",
    )


def sampling(end: float) -> Sampling:
    """Many empty lines and, as ``end`` is larger, more ends."""
    (line,), (empty,) = words()("\n").input_ids, words()("\n\n").input_ids
    return Sampling(temperature=1.0, logit_bias={line: 3.5, empty: 3.5, words().eos_token_id: end})


def modes(result: Result) -> list[str]:
    """Who has a token in each tick."""
    return ["".join(row["worker"][0] for row in e["rows"]) for e in result.trace.events if e["event"] == "tick"]


def answers(result: Result) -> list[str]:
    """What the probe said."""
    notes = [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "decided"]
    return [str(note["answer"]) for note in notes]


TOYS = ((1, 0.0), (2, 0.0), (7, 2.0), (11, 2.0), (12, 2.0))
"""Models that differ in how often they answer Yes, and how much their ends are favoured."""
ARMS: tuple[tuple[str, Seen], ...] = (
    ("one_way", "cache"),
    ("mutual", "cache"),
    ("one_way", "reencode"),
    ("mutual", "reencode"),
)


@pytest.mark.parametrize(("layout", "thoughts"), ARMS)
def test_tokens_and_switches_are_those_of_a_slow_loop_over_dense_forwards(layout: str, thoughts: Seen) -> None:
    """Five of twenty random scripts, each to its end."""
    ticks, said = Counter[str](), Counter[str]()
    for seed, (model, end) in enumerate(TOYS, start=len(TOYS) * ARMS.index((layout, thoughts))):
        made, how = engine(model), sampling(end)
        result = made.run(
            programs.async_reasoning,
            PROBLEM,
            budget=Budget(ticks=TICKS),
            sampling=how,
            seed=seed,
            every=EVERY,
            layout=layout,
            thoughts=thoughts,
            final_tokens=LAST,
        )
        loop = Loop(
            toy_engine.llama(made), words(), how, seed=seed, every=EVERY, mutual=layout == "mutual", seen=thoughts
        )
        told = loop.write(TICKS, LAST)
        assert modes(result) == told.modes
        assert answers(result) == told.answers
        assert [worker.ids for worker in result.workers] == [told.thoughts, told.answer]
        ticks.update(told.modes)
        said.update(told.answers)
    assert min(ticks["T"], ticks["TW"], ticks["W"], said["Yes"], said["No"]) >= 3, (ticks, said)


class Account:
    """What the rules say that a row sees, by the name of the block that it writes to."""

    def __init__(self, layout: str, thoughts: str) -> None:
        self.layout, self.thoughts, self.again = layout, thoughts, 0

    def sees(self, block: str) -> Items:
        self.again += block == "thoughts"  # each time they are encoded again
        start = [("input", 0, None), ("opening", 0, None)]
        answer = [("split", 0, None), ("Writer", 0, None)]
        copy = [(f"thoughts {self.again}", 0, None)]
        live = [] if self.thoughts == "none" else [("Thinker", 0, None)]
        between = copy if self.thoughts == "reencode" else live
        told = {
            "input": start[:1],
            "opening": start,
            "split": [*start, ("Thinker", 0, None), ("split", 0, None)],
            "heading": [start[0], ("heading", 0, None)],
            "turn": [start[0], ("heading", 0, None), ("Writer", 0, None), ("turn", 0, None)],
            "thoughts": [*start, *copy],
            "Thinker": [*start, ("Thinker", 0, None)],
            "Writer": [*start, *between, *answer],
        }
        if self.layout == "mutual":
            mutual = [start[0], ("heading", 0, None), ("Writer", 0, None), ("turn", 0, None), ("Thinker", 0, None)]
            told["Thinker"] = mutual
        if block in told:
            return told[block]
        return [*start, *live, *answer]  # the probe stands behind what the writer sees of a live cache


class ProbedJudge(Judge):
    """A judge of the probe's rows too: pieces of a question one behind the other, then what may be answered, of which
    the first row is what Yes and No begin with."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, account: Account) -> None:
        self.account, self.number, self.before = account, 0, list[str]()
        super().__init__(engine, monkeypatch, self.sees)

    def sees(self, block: str) -> Items:
        name = block.split(":")[0]
        if name not in ("question", "answer"):
            self.before.clear()
            return self.account.sees(name)
        self.number += 1
        own = f"{name} {self.number}"
        if name == "question" and any(one.startswith("answer") for one in self.before):
            self.before.clear()  # the next probe
        asked = [one for one in self.before if one.startswith("question")]
        common = [one for one in self.before if one.startswith("answer")][:1]
        self.before.append(own)
        behind = [(one, 0, None) for one in (*asked, *common, own)]
        return [*self.account.sees("probe"), *behind]


@pytest.mark.parametrize(("layout", "thoughts"), [*ARMS, ("one_way", "none")])
def test_every_row_sees_what_the_published_layout_shows(
    layout: str, thoughts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine(2)
    whole = made.executor.run
    judge = ProbedJudge(made, monkeypatch, Account(layout, thoughts))
    result = solve(made, ticks=36, layout=layout, thoughts=thoughts, think=14, sampling=sampling(-9.0))
    monkeypatch.setattr(made.executor, "run", whole)
    assert {"Thinker", "Writer", "split", "question"} <= set(judge.names)
    assert ("thoughts" in judge.names) == (thoughts == "reencode")
    assert {"T", "TW", "W"} <= set(modes(result))
    assert "Yes" in answers(result)
    assert judge.error() < 1e-9


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))])
def test_tokens_are_drawn_from_the_logits_of_dense_forwards(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty random scripts, half of them in either layout, with the probe's rows: every token of both streams is the
    one that a dense forward gives, picked by the plain twin of the sampler. On bytes the probe never says Yes."""
    engine = Engine(widen(toy_engine.model()), toy_engine.tokenizer(), kv_tokens=8192, page_size=4)
    layout = "mutual" if seed % 2 else "one_way"
    judge = ProbedJudge(engine, monkeypatch, Account(layout, "cache"))
    (line,) = engine.tokenizer("\n").input_ids
    warm = Sampling(temperature=1.0, logit_bias={line: 5.0, **dict.fromkeys(engine.ends, 1.0)})
    result = solve(engine, seed, ticks=24, layout=layout, sampling=warm)
    logits = judge.oracle.solve().logits
    assert max(float((logits[number] - row).abs().max()) for number, row in judge.found) < 1e-9
    assert "question" in judge.names
    for index, worker in enumerate(result.workers):
        rows = [number for name, (number, _) in zip(judge.names, judge.found, strict=True) if name == worker.name]
        drawn = [pick(logits[row], Draw(warm, seed, index, step)).id for step, row in enumerate(rows)]
        assert worker.ids == drawn[: len(worker.ids)]
        assert len(drawn) <= len(worker.ids) + 1
