"""The tap on the attention: whose words each row attends to, against a dense softmax, and what it must not change.

Covers the reference and every instruction-set path of the native kernels on shared, joined, gathered and masked
segments, several owners of one block, rows of several tokens, windows, sinks and soft caps, contexts of several parts
and threads, packed weights as one call; that outputs keep their bits; runs that share ticks; the events of a run, and
whose words they say stand where, in a team, its controls and a program inside another; and the named errors. Where
``kvorum-native`` is missing, only the error is tested. Not covered: the Triton kernels, which
have none; cost, which is measured (docs/lab.md).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import families
import local_backend
import oracle
import toy_engine
from kvorum import Budget, Engine, Gap, Row, Run, Span, View, programs
from kvorum.attention.triton.attention import TritonAttention
from kvorum.engine.owners import Owners
from kvorum.errors import BadRequest
from kvorum.harness.answers import asks_for_answer
from kvorum.kv import Block
from kvorum.models.runners.lean import LeanRunner
from kvorum.native_extension import kernels
from kvorum.runs.program import program
from kvorum.runs.start import inside
from scripted_workers import exact as talking
from scripted_workers import solve, together
from scripted_workers import start as begin

KERNELS = kernels()
PATHS = ["reference", *(KERNELS.paths() if KERNELS is not None else [])]
NAMES = ["", "Ann", "Ben", "Cem"]


@contextmanager
def on(path: str) -> Iterator[str]:
    """An engine's ``attention``, with the native kernels on that path."""
    if path == "reference":
        yield path
        return
    assert KERNELS is not None
    before = KERNELS.path()
    KERNELS.use(path)
    try:
        yield "native"
    finally:
        KERNELS.use(before)


class Played:
    """Ticks of three writers over a shared prompt, whose views are edited in between; the same for every engine.

    ``shares``: what the tap saw, per tick and row; ``logits`` of all new tokens. With an oracle, the same ticks are
    recorded there, and the owner of every token as this script knows it.
    """

    def __init__(self, engine: Engine, seed: int, tap: bool = True, dense: oracle.Oracle | None = None) -> None:
        self.engine, self.dense, self.owners = engine, dense, Owners(1)
        self.choose = random.Random(seed)
        self.shares: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.whose: list[int] = []
        self.ends: list[int] = []
        prompt, history = engine.block("prompt"), engine.block("history")
        own = [engine.block(name) for name in NAMES[1:]]
        for block in own:
            self.owners.credit(block, block.name)
        self.go([View(prompt)], [23], tap)
        views = [View(prompt, history, *(b for b in own if b is not mine), mine) for mine in own]
        for step in range(6):
            self.go(views, [self.choose.choice((1, 1, 2, 37)) for _ in views], tap)
            if step == 1:  # two finished steps in one block, one of which the others see in pieces of two tokens
                for mine in own[:2]:
                    start = len(history)
                    engine.compact([mine], history)
                    self.owners.credit(history, mine.name, start)
                    if dense is not None:
                        dense.move([(mine.uid, 0, None)], history.uid)
                fresh = engine.block("Ann")
                self.owners.credit(fresh, "Ann")
                own = [fresh, *own[1:]]
                pairs = [Span(history, at, min(at + 2, len(history))) for at in range(0, len(history), 2)]
                views = [View(prompt, history, own[1], fresh), View(prompt, *pairs, Gap(3), fresh, own[1])]
            elif step == 3:
                views[1] = views[1].splice(2, 9).gap(4, 6)

    def go(self, views: list[View], counts: list[int], tap: bool) -> None:
        ids = [[self.choose.randrange(3, 60) for _ in range(count)] for count in counts]
        rows = [Row(view, ids=new) for view, new in zip(views, ids, strict=True)]
        if self.dense is not None:
            told = [[(i.block.uid, i.lo, i.hi) if isinstance(i, Span) else len(i) for i in v.items] for v in views]
            numbers = self.dense.tick(list(zip(told, ids, strict=True)))
            self.ends += [new[-1] for new in numbers]
            self.whose += [
                NAMES.index(row.view.own.name) if row.view.own and row.view.own.name in NAMES else 0
                for row in rows
                for _ in range(row.count)
            ]
        out = self.engine.forward(rows, every=True, owners=self.owners if tap else None)
        assert out.every is not None
        self.logits += out.every
        if tap:
            assert out.attention is not None
            self.shares += [torch.nn.functional.pad(s, (0, 4 - s.shape[1])) for s in out.attention if s is not None]


def judged(model: Any, seed: int) -> list[Tensor]:
    """The shares by the dense oracle: values of each token are replaced by who wrote it."""
    dense, spied = oracle.Oracle(model), dict[int, list[Tensor]]()
    played = Played(Engine(model, kv_tokens=4096, page_size=4, attention="reference"), seed, dense=dense)
    marks = torch.nn.functional.one_hot(torch.tensor(played.whose), 4).to(torch.float64)
    whole = oracle._attend

    def spy(row: Any, query: Tensor, keys: Tensor, values: Tensor, *rest: Any) -> Tensor:
        owners = marks[:, None].expand(-1, keys.shape[1], -1)
        spied.setdefault(int(row.numbers[-1]), []).append(whole(row, query, keys, owners, *rest)[-1].mean(0))
        return whole(row, query, keys, values, *rest)

    oracle._attend = spy  # type: ignore[assignment]
    try:
        dense.solve()
    finally:
        oracle._attend = whole
    return [torch.stack(spied[end]) for end in played.ends]


@cache
def truth(family: str, seed: int) -> list[Tensor]:
    return judged(families.build(family, dtype=torch.float32), seed)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_equals_the_dense_softmax(family: str, path: str) -> None:
    model = families.build(family, dtype=torch.float32)
    for seed in (1, 2):
        with on(path) as attention:
            found = Played(Engine(model, kv_tokens=4096, page_size=4, attention=attention), seed).shares
        for ours, theirs in zip(found, truth(family, seed), strict=True):
            assert float((ours - theirs).abs().max()) < 1e-5
            assert ours.sum(-1) == pytest.approx(1.0, abs=1e-5)
    most = 2 if family == "mistral" else 4  # its window leaves room for less
    assert max(int((shares > 0).sum(-1).max()) for shares in found) == most


@pytest.mark.parametrize("path", PATHS[1:])
@pytest.mark.parametrize("family", ["gemma2", "gpt-oss", "phi", "deepseek-v2", "glm4"])
def test_native_equals_the_reference(family: str, path: str) -> None:
    """Soft caps, sinks, partial and interleaved rotations."""
    model = families.build(family, dtype=torch.float32)
    twin = Played(Engine(model, kv_tokens=4096, page_size=4, attention="reference"), 3)
    with on(path) as attention:
        ours = Played(Engine(model, kv_tokens=4096, page_size=4, attention=attention), 3)
    for a, b in zip(ours.shares, twin.shares, strict=True):
        assert float((a - b).abs().max()) < 1e-5
    sums = torch.stack([shares.sum(-1) for shares in twin.shares])
    assert bool((sums < 0.999).all() if family == "gpt-oss" else (sums > 1 - 1e-4).all()), "a sink's share is nobody's"


@pytest.mark.parametrize("path", PATHS)
def test_nothing_changes(path: str) -> None:
    model = families.build("llama", dtype=torch.float32)
    with on(path) as attention:
        with_tap = Played(Engine(model, kv_tokens=4096, page_size=4, attention=attention), 5)
        without = Played(Engine(model, kv_tokens=4096, page_size=4, attention=attention), 5, tap=False)
    assert all(torch.equal(a, b) for a, b in zip(with_tap.logits, without.logits, strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_long_contexts_in_parts_and_threads(path: str) -> None:
    """Parts of a segment that hold the words of several, and a lone row that goes through in pieces."""
    model = families.build("llama", dtype=torch.float32)
    ids = families.random_ids(2000, 5).flatten().tolist()
    seen = []
    for attention, threads in (("reference", 1), (path, 2)):
        with on(attention) as name:
            engine = Engine(model, kv_tokens=8192, prefill_chunk=300, attention=name)
            owners = Owners(1)
            prompt, mine = engine.block(), engine.block()
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                long = engine.forward([Row(View(prompt), ids=ids)], owners=owners)
                for at, whose in ((100, "Ann"), (700, "Ben"), (701, "Cem"), (1500, "Ann")):
                    owners.credit(prompt, whose, at, at + 400 if whose != "Ben" else at + 1)
                both = engine.forward([Row(View(prompt, mine), ids=ids[:2])], owners=owners)
            finally:
                torch.set_num_threads(before)
        assert long.attention is not None
        assert both.attention is not None
        assert long.attention[0] is not None
        assert long.attention[0].tolist() == pytest.approx(torch.ones(len(long.attention[0]), 1))
        seen.append(both.attention[0])
    assert seen[0] is not None
    assert seen[1] is not None
    assert float((seen[0] - seen[1]).abs().max()) < 1e-5
    assert float(seen[0][:, 1:].min()) > 0


@pytest.mark.skipif(KERNELS is None, reason="needs kvorum-native")
def test_packed_weights_in_one_call() -> None:
    """The decoder that runs all layers in one call, against the same weights layer by layer."""
    packed = Engine.load("smollm2-135m", quantize="packed", kv_tokens=4096)
    found, logits = [], []
    for native in (True, False):
        runner = local_backend.backend(packed).runner
        assert isinstance(runner, LeanRunner)
        whole = runner._native
        runner._native = whole if native else None
        try:
            played = Played(packed, 7)
            plain = Played(packed, 7, tap=False)
        finally:
            runner._native = whole
        assert all(torch.equal(a, b) for a, b in zip(played.logits, plain.logits, strict=True))
        found.append(played.shares)
        logits.append(played.logits)
    if all(torch.equal(a, b) for a, b in zip(*logits, strict=True)):
        assert all(float((a - b).abs().max()) < 1e-5 for a, b in zip(*found, strict=True))
    for shares in found[0]:
        assert shares.shape == (30, 4)
        assert shares.sum(-1) == pytest.approx(1.0, abs=1e-5)


# -- runs -------------------------------------------------------------------------------------------------------------


def events(result: Any) -> list[dict[str, Any]]:
    return [event for event in result.trace.events if event["event"] == "attention"]


TEXTS = {"Alice": ["I say one.\n\nAnd two."], "Bob": ["Yes.\n\nNo."]}


def team(tap: int = 1, **options: Any) -> tuple[Any, Run]:
    return solve(
        programs.hogwild,
        "Go.",
        TEXTS,
        on=talking(),
        workers=2,
        tap=tap,
        budget=Budget(ticks=30),
        openings=False,
        suppress_markup=False,
        ends="line",
        final_tokens=2,
        **options,
    )


def test_a_run_tells_whose_words_its_workers_attend_to() -> None:
    plain, tapped = team(0)[0], team(3)[0]
    assert [worker.ids for worker in plain.workers] == [worker.ids for worker in tapped.workers]
    assert events(plain) == []
    told = events(tapped)
    ticks = [event["n"] for event in tapped.trace.events if event["event"] == "tick"]
    assert [event["n"] for event in told] == [n for n in ticks if n % 3 == 0]
    for event in told:
        assert event["owners"] == ["", "Alice", "Bob"]
        for row in event["rows"]:
            assert len(row["shares"]) == 3
            assert all(sum(layer) == pytest.approx(1.0, abs=1e-3) and min(layer) > 0 for layer in row["shares"])


def test_finished_steps_stay_their_writers_words() -> None:
    """In the history, against the moves that the trace tells."""
    result, run = team()
    moves = [event for event in result.trace.events if event["event"] == "move"]
    assert {event["worker"] for event in moves} == {"Alice", "Bob"}
    history = next(block for block in run.workers[0].view.blocks if block.name == "history")
    start = len(history) - sum(event["tokens"] for event in moves)
    pieces = run.owners.of(history, 0, len(history))
    spelled = [run.owners.names[whose] for lo, hi, whose in pieces for _ in range(lo, hi)]
    assert pieces[0][0] == start, "the prompt is nobody's"
    assert spelled == [event["worker"] for event in moves for _ in range(event["tokens"])]


@pytest.mark.parametrize("channel", ["text", "none", "zeroed", "random", "mismatched"])
def test_controls(channel: str) -> None:
    """A reader attends to what stands in the others' places, and to nothing of them where nothing does."""
    result = team(channel=channel, other="Stop." if channel == "mismatched" else "")[0]
    ticks = [event for event in result.trace.events if event["event"] == "tick"]
    forced = next(e["n"] for e in ticks if any(asks_for_answer(row.get("given", "")) for row in e["rows"]))
    told = [event for event in events(result) if event["n"] < forced]
    assert len(told) == forced > 10
    for event in told:
        for row in event["rows"]:
            for name, share in zip(event["owners"], map(max, zip(*row["shares"], strict=True)), strict=True):
                other = name.rstrip("~") not in ("", row["worker"].rstrip("~"))
                shown = channel != "none" and ("~" in name) == (channel == "mismatched")
                if other:
                    assert (share > 0) == (shown or ("~" in row["worker"] and "~" in name))
                elif name in ("", row["worker"]):
                    assert share > 0


def test_runs_that_share_ticks_see_their_own() -> None:
    alone = [
        events(solve(programs.vote, text, workers=2, tap=2, budget=Budget(ticks=9), on=talking())[0])
        for text in ("A", "B")
    ]
    runs = [begin(programs.vote, text, on=talking(), workers=2, tap=2, budget=Budget(ticks=9)) for text in ("A", "B")]
    both = together([*runs, begin(programs.solo, "No tap.", on=talking(), budget=Budget(ticks=9))])
    assert events(both[2]) == []
    for one, other in zip(alone, both, strict=False):
        assert [event["owners"] for event in one] == [event["owners"] for event in events(other)]
        for a, b in zip(one, events(other), strict=True):
            assert torch.tensor([r["shares"] for r in a["rows"]]) == pytest.approx(
                torch.tensor([r["shares"] for r in b["rows"]]), abs=2e-5
            )


def test_a_program_inside_another() -> None:
    @program("outer", "asks a team")
    async def outer(run: Run) -> str | None:
        block = run.block("start")
        await run.prefill(View(block), run.encode("Before."))
        return await inside(run, View(block), programs.vote, "B?", name="team", workers=["Ann", "Ben"])

    told = events(solve(outer, "A?", on=talking(), workers=1, tap=1, budget=Budget(ticks=6))[0])
    assert told
    assert told[-1]["owners"] == ["", "team/Ann", "team/Ben"]
    assert {row["worker"] for row in told[0]["rows"]} == {"team/Ann", "team/Ben"}


def test_pieces() -> None:
    pool = talking().pool
    block = Block(pool)
    block.append(list(range(40)))
    owners = Owners(1)
    assert owners.of(block, 0, 40) == []
    owners.credit(block, "Ann", 10, 20)
    owners.credit(block, "Ben", 20, 25)
    owners.credit(block, "Ann", 30)
    assert owners.of(block, 0, 40) == [(10, 20, 1), (20, 25, 2), (30, 40, 1)]
    assert owners.of(block, 15, 22) == [(15, 20, 1), (20, 22, 2)]
    block.append([1, 2])
    assert owners.of(block, 28, 42) == [(30, 40, 1)]
    owners.credit(block, "Cem")
    assert owners.of(block, 0, 42) == [(0, 42, 3)]
    silent = Owners()
    silent.credit(block, "Ann")
    assert silent.of(block, 0, 42) == []
    assert silent.due(0) is None


def test_what_cannot_be_tapped_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRequest, match="tap=-1"):
        solve(programs.solo, "Go.", on=talking(), tap=-1)
    triton = object.__new__(TritonAttention)
    assert "attention='reference'" in str(triton.lacks_tap())
    made = toy_engine.engine()
    assert made.backend.lacks_tap() is None
    monkeypatch.setattr(made.backend, "attention", triton)
    view = View(made.block())
    with pytest.raises(BadRequest, match="attention='reference'"):
        made.forward([Row(view, ids=[1])], owners=Owners(1))
    assert len(view) == 0
