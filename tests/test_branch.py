"""Fork and join: attempts at one position, and a join that reads them all.

Covers the attention masks and positions of Multiverse and ParaThinker, rebuilt as dense masks, each from its own
definition, on a tiny model in float64: every logit of attempts and join, of attempts of different lengths too; attempts
that stand behind each other instead; what is in the
trace; budgets that end before the join; attempts that programs make. Budgets, nesting and replay of all programs are
tested where all are.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import toy_engine
from kvorum import Budget, Engine, Result, Run, Sampling, Span, programs
from kvorum.engine.row import CheckedRow
from kvorum.engine.tick_result import TickResult
from kvorum.jsontypes import Json
from kvorum.store.events import note_data


class Heard:
    """The logits after the last token of every row of every tick, by (block's name, tokens in it)."""

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch) -> None:
        self.logits: dict[tuple[str, int], Tensor] = {}
        self.ids: dict[str, list[int]] = {}
        whole = engine.executor.run

        def tick(rows: list[CheckedRow], hidden: bool = False) -> TickResult:
            done = whole(rows, hidden)
            for row, line in zip(rows, done.output.logits, strict=True):
                self.logits[row.own.name, len(row.own)] = line
                self.ids[row.own.name] = row.own.ids
            return done

        patch.setattr(engine.executor, "run", tick)


def run(engine: Engine, stand: str, **options: object) -> Result:
    more: dict[str, object] = {"tokens": 5, "sampling": Sampling(temperature=1.0), **options}
    return engine.run(programs.branch, "What is 2+3?", workers=3, stand=stand, answer="text", **more)  # type: ignore[arg-type]


def dense(engine: Engine, heard: Heard, names: list[str], stand: str) -> tuple[list[tuple[str, int]], Tensor]:
    """All tokens in one sequence: attempts start at one position and are masked from each other; what is joined sees
    all of them and stands behind the longest, or behind all."""
    ids: list[int] = []
    position: list[int] = []
    of: list[str] = []
    start = len(heard.ids["prompt"])
    reach = start
    for name in ["prompt", *names, "Join"]:
        begin = 0 if name == "prompt" else start if name != "Join" and stand == "beside" else reach
        if name in names and stand == "behind":
            begin = start  # where it was written
        ids += heard.ids[name]
        position += range(begin, begin + len(heard.ids[name]))
        of += [name] * len(heard.ids[name])
        reach = max(reach, begin + len(heard.ids[name])) if stand == "beside" else reach
    places, who = torch.tensor(position), of
    distance = places[:, None] - places[None, :]
    if stand == "behind":
        before, offset = {}, start
        for name in names:
            before[name] = offset
            offset += len(heard.ids[name])
        for i, mine in enumerate(who):
            for j, other in enumerate(who):
                if mine == "Join":  # sees the attempts one behind the other
                    at = {n: before[n] - start for n in names}.get(other, 0)
                    own = offset + (i - who.index("Join"))
                    seen = offset + (j - who.index("Join")) if other == "Join" else position[j] + at
                    distance[i, j] = own - seen
    for i, mine in enumerate(who):
        for j, other in enumerate(who):
            if j > i or (other not in ("prompt", mine) and mine != "Join"):
                distance[i, j] = -1
    label, counts = [], dict.fromkeys(who, 0)
    for name in who:
        counts[name] += 1
        label.append((name, counts[name]))
    return label, toy_engine.dense(toy_engine.llama(engine), ids, distance)


@pytest.mark.parametrize("stand", ["beside", "behind"])
def test_the_masks_and_positions_are_those_of_the_papers(stand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy_engine.engine(torch.float64)
    heard = Heard(engine, monkeypatch)
    result = run(engine, stand, budget=Budget(ticks=14))
    names = [worker.name for worker in result.workers[:3]]
    label, logits = dense(engine, heard, names, stand)
    found = {at: heard.logits[at] for at in label if at in heard.logits}
    assert sum(name == "Join" for name, _ in found) >= 3
    assert all(sum(one == name for one, _ in found) >= 3 for name in names)
    for at, line in zip(label, logits, strict=True):
        if at in found:
            assert float((found[at] - line).abs().max()) < 1e-9, at


def multiverse(lengths: list[int]) -> Tensor:
    """Distances, -1 where a token does not see another, as Multiverse has them: a graph of steps, in which paths follow
    the same step and the conclusion follows all paths. A step sees those that lead to it and begins at the farthest end
    of them."""
    last = len(lengths) - 1
    after = {0: [], **{path: [0] for path in range(1, last)}, last: list(range(last))}
    begin: dict[int, int] = {}
    tokens = []
    for step, size in enumerate(lengths):
        begin[step] = max((begin[one] + lengths[one] for one in after[step]), default=0)
        tokens += [(step, begin[step] + at) for at in range(size)]
    found = torch.full((len(tokens), len(tokens)), -1)
    for i, (step, place) in enumerate(tokens):
        for j, (other, there) in enumerate(tokens):
            if other in after[step] or (other == step and there <= place):
                found[i, j] = place - there
    return found


def parathinker(lengths: list[int]) -> Tensor:
    """The same as ParaThinker has them, without its trained embeddings of paths: token t of every path stands at the
    prompt's length and t, the summary behind the longest; a path sees prompt and itself, the summary everything."""
    sizes = torch.tensor(lengths)
    part = torch.arange(len(lengths)).repeat_interleave(sizes)
    at = torch.cat([torch.arange(size) for size in lengths])
    summary = part == len(lengths) - 1
    place = at + sizes[0] * (part > 0) + sizes[1:-1].max() * summary
    causal = (part[:, None] == part) & (at[:, None] >= at)
    prompt = (part[:, None] > 0) & (part == 0)
    return (place[:, None] - place).where(causal | prompt | (summary[:, None] & ~summary), -1)


def test_ragged_attempts_have_the_masks_of_both_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    ragged = []
    for seed in range(6):
        engine = toy_engine.engine(torch.float64)
        heard = Heard(engine, monkeypatch)
        ends = Sampling(temperature=1.0, logit_bias=dict.fromkeys(engine.ends, 4.5))
        result = run(engine, "beside", tokens=12, seed=seed, sampling=ends, budget=Budget(ticks=28))
        names = ["prompt", *(worker.name for worker in result.workers[:3]), "Join"]
        lengths = [len(heard.ids[name]) for name in names]
        ragged.append(len(set(lengths[1:4])))
        (note,) = [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "join"]
        assert note["at"] == lengths[0]
        label = [(name, at + 1) for name, size in zip(names, lengths, strict=True) for at in range(size)]
        ids = [token for name in names for token in heard.ids[name]]
        for mask in (multiverse, parathinker):
            logits = toy_engine.dense(toy_engine.llama(engine), ids, mask(lengths))
            found = {at: line for at, line in zip(label, logits, strict=True) if at in heard.logits}
            assert {name for name, _ in found} == set(names)
            for at, line in found.items():
                assert float((heard.logits[at] - line).abs().max()) < 1e-9, (seed, at)
    assert ragged.count(3) >= 3, ragged


@pytest.mark.forward
def test_beside_is_not_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempts are the same, and the join reads them at other distances."""
    told = []
    for stand in ("beside", "behind"):
        engine = toy_engine.engine()
        heard = Heard(engine, monkeypatch)
        result = run(engine, stand, budget=Budget(ticks=14))
        told.append(([worker.text for worker in result.workers[:3]], heard.logits))
    assert told[0][0] == told[1][0]
    first = min(length for name, length in told[0][1] if name == "Join")
    assert float((told[0][1]["Join", first] - told[1][1]["Join", first]).abs().max()) > 1e-4


@pytest.mark.forward
def test_the_trace_tells_of_the_join_and_a_short_budget_has_an_answer() -> None:
    result = run(toy_engine.engine(), "beside", budget=Budget(ticks=14))
    (note,) = [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "join"]
    assert note["attempts"] == [5, 5, 5]
    view = next(e for e in reversed(result.trace.events) if e["event"] == "view" and e["worker"] == "Join")
    assert [item[5] for item in view["items"] if len(item) == 6] == [note["at"]] * 3
    short = run(toy_engine.engine(), "beside", budget=Budget(ticks=3))
    assert (short.outcome, short.answer) == ("cut", short.workers[0].text.strip())


@pytest.mark.parametrize("leaf", ["vote", "ask"])
def test_an_attempt_may_be_a_program(leaf: str) -> None:
    """The join reads what each answered, encoded at the attempts' common place."""
    params: dict[str, Json] = {"workers": 2} if leaf == "vote" else {"questions": ["How many?"], "tokens": 5}
    held: list[Run] = []
    more: dict[str, object] = {"leaf": leaf, "leaf_params": params, "control": held.append}
    result = run(toy_engine.fake(), "beside", budget=Budget(ticks=9000), **more)
    ticks = [event["rows"] for event in result.trace.events if event["event"] == "tick"]
    inner = {row["worker"].split("/")[0] for rows in ticks for row in rows if "/" in row["worker"]}
    assert inner == {"Alice", "Bob", "Carol"}
    ended = [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "inside"]
    answers = {note["name"]: str(note["answer"]) for note in ended if note.get("answer")}
    assert answers.keys() == inner
    join = held[0].workers[-1]
    starts = join.view.starts()
    for span, start in zip(join.view.items, starts, strict=False):
        if isinstance(span, Span) and span.block.name in answers:
            said = held[0].encode(answers[span.block.name])[:5]
            assert span.block.ids[-len(said) :] == said
            assert start == len(join.view.blocks[0])
    assert result.answer


def test_programs_that_spend_all_leave_the_join_what_reads_them() -> None:
    held: list[Run] = []
    result = toy_engine.fake().run(
        programs.branch,
        "What is 2+3?",
        workers=2,
        leaf="solo",
        final_tokens=3,
        sampling=Sampling(temperature=1.0, banned=[265]),
        budget=Budget(ticks=60),
        control=held.append,
    )
    assert (result.outcome, result.spent) == ("forced", "ticks")
    assert result.ledger.ticks <= 60
    join = held[0].workers[-1]
    assert join.ids, "it was asked behind them"
    notes = [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "inside"]
    said = [str(note["answer"] or "") for note in notes if "outcome" in note]
    assert any(said)
    assert sum(map(len, join.view.blocks[1:3])) == 2 + sum(len(held[0].encode(text)) for text in said)
