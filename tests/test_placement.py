"""Placed spans: two that take the same positions, positions that nothing takes, and what follows.

Covers where items stand and what edits make of it (against a plain list of positions), random programs of views with
placements against the dense oracle in float64 for several rotations and windows, the native kernels against the
reference, in float32 and over caches in int8, a view made again of saved blocks, the refusal of a row that would look
ahead, longest positions, traces and runs inside runs. The Triton kernels meet placed spans in
``test_triton_attention.py``, the server's items in ``test_serve_load.py``.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import families
import toy_engine
from kvorum import Block, Cost, Engine, Gap, Row, Run, Span, View, inside, program
from kvorum.attention import view_structure
from kvorum.errors import NotWritable, SeenTwice, SpanOutOfRange, ViewError, ViewTooLong
from kvorum.kv import CacheConfig, CacheShape, PagePool
from kvorum.native_extension import kernels
from oracle import Oracle, widen
from test_forward_oracle import close
from view_programs import Places, play, really_met, reloaded, solve

MODELS = ("llama", "theta 100", "theta 1e6", "mistral", "qwen2-sliding", "gemma3")


@cache
def model(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """A tiny model; of a theta, which decides how fast what stands far away turns."""
    kind, _, theta = name.partition(" ")
    made: Any = families.build("llama" if theta else kind, dtype)
    if theta:
        rotary = made.model.rotary_emb
        half = torch.arange(len(rotary.inv_freq)) / len(rotary.inv_freq)
        rotary.inv_freq.copy_(float(theta) ** -half)
    return widen(made) if dtype == torch.float64 else made


# -- where things stand --------------------------------------------------------------------------------------------


def blocks(*lengths: int) -> list[Block]:
    made, pool = [], PagePool(CacheConfig((CacheShape(1, 2, 2),), 512, page_size=4))
    for at, length in enumerate(lengths):
        made.append(Block(pool, f"b{at}"))
        made[-1].append(range(100 * at, 100 * at + length))
    return made


def standing(view: View) -> set[tuple[int, str, int]]:
    """(position, block, index) of every token, spelled out from what the docs say."""
    end, found = 0, set()
    for item in view.items:
        if isinstance(item, Gap):
            end += item.length
            continue
        start = end if item.at is None else item.at
        hi = len(item.block) if item.hi is None else item.hi
        found |= {(start + index - item.lo, item.block.name, index) for index in range(item.lo, hi)}
        end = max(end, start + hi - item.lo)
    return found


@st.composite
def views(draw: st.DrawFn) -> tuple[list[Block], View]:
    """Spans of which some are placed, own block behind them all."""
    made = blocks(*draw(st.lists(st.integers(0, 8), min_size=3, max_size=6)))
    *rest, own = made
    items: list[Block | Span | Gap] = []
    for block in draw(st.permutations(rest)):
        lo, hi = sorted((draw(st.integers(0, len(block))), draw(st.integers(0, len(block)))))
        at = draw(st.sampled_from((None, 3, 3, draw(st.integers(0, 20)))))
        items.append(Span(block, lo, draw(st.sampled_from((hi, None))), at))
        if draw(st.integers(0, 3)) == 0:
            items.append(Gap(draw(st.integers(0, 3))))
    return made, View(*items, own)


def test_siblings_take_the_same_positions_and_what_follows_stands_behind_the_farthest() -> None:
    prompt, a, b, own = blocks(5, 3, 7, 0)
    view = View(prompt, Span(a, at=5), Span(b, at=5), own)
    assert (view.starts(), len(view)) == ([0, 5, 5, 12, 12], 12)
    a.append(range(9))
    assert view.starts() == [0, 5, 5, 17, 17]
    assert view.starts({own.uid: 2, b.uid: 1}) == [0, 5, 5, 17, 19]
    assert View(Span(a, 1, 2, at=30), own).starts() == [0 + 30, 31, 31]
    with pytest.raises(SeenTwice):
        View(a, Span(a, at=40))
    with pytest.raises(SpanOutOfRange, match="before position 0"):
        Span(a, at=-1)
    with pytest.raises(ViewError, match="whole numbers"):
        Span(a, at=1.5)  # type: ignore[arg-type]


@settings(max_examples=300)
@given(made=views(), data=st.data())
def test_edits_are_edits_of_a_list_of_positions(made: tuple[list[Block], View], data: st.DataObject) -> None:
    all_blocks, view = made
    start, end = sorted((data.draw(st.integers(0, len(view))), data.draw(st.integers(0, len(view)))))
    before, own = standing(view), all_blocks[-1]
    kept = {place for place in before if not start <= place[0] < end}
    assert standing(view.gap(start, end)) == kept
    moved = {(at - (end - start) * (at >= end), name, index) for at, name, index in kept}
    assert standing(view.splice(start, end)) == moved
    assert len(view.gap(start, end)) == len(view)
    assert len(view.splice(start, end)) == len(view) - (end - start)
    assert view.gap(start, end).own is view.splice(start, end).own is own
    fresh = Block(own.pool, "fresh")
    fork = view.fork(start, fresh)
    fresh.append([1])
    assert standing(fork) == {place for place in before if place[0] < start} | {(start, "fresh", 0)}


def test_a_view_behind_another_keeps_its_shape() -> None:
    first, prompt, a, b = blocks(4, 2, 3, 5)
    inner = View(prompt, Span(a, at=2), Span(b, at=2))
    whole = View(first).behind(inner)
    assert whole.starts() == [0, 4, 6, 6, 11]
    assert standing(whole) - standing(View(first)) == {(at + 4, name, index) for at, name, index in standing(inner)}


# -- attention -----------------------------------------------------------------------------------------------------


def test_random_placements_equal_the_dense_oracle() -> None:
    met = Counter[str]()

    @settings(max_examples=60)
    @given(
        data=st.data(),
        name=st.sampled_from(MODELS),
        page_size=st.sampled_from((1, 3, 16)),
        join_below=st.sampled_from((0, 64)),
    )
    def check(data: st.DataObject, name: str, page_size: int, join_below: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(view_structure, "JOIN_BELOW", join_below)
            maker = Places(
                data.draw, Engine(model(name), kv_tokens=2048, page_size=page_size), vocab=families.VOCAB, width=48
            )
            maker.make(data.draw(st.integers(3, 12)))
        close(maker.played, solve(maker.script, model(name)))
        met.update(maker.reached)

    check()
    really_met(met, placed=0.2, siblings=0.15, patched=0.05)


@pytest.mark.skipif(kernels() is None, reason="kvorum-native is not installed")
def test_the_native_kernels_equal_the_reference() -> None:
    met = Counter[str]()

    @settings(max_examples=30)
    @given(
        data=st.data(),
        name=st.sampled_from(("llama", "theta 100", "qwen2-sliding", "gemma3")),
        cache=st.sampled_from((("auto", 1e-4), ("int8", 5e-2))),  # in int8 a last bit may be one step of a row
    )
    def check(data: st.DataObject, name: str, cache: tuple[str, float]) -> None:
        narrow, (kept, near) = model(name, torch.float32), cache
        plain = Engine(narrow, kv_tokens=2048, attention="reference", kv_dtype=kept)
        maker = Places(data.draw, plain, vocab=families.VOCAB, width=48)
        maker.make(data.draw(st.integers(4, 10)))
        ours = play(Engine(narrow, kv_tokens=2048, attention="native", kv_dtype=kept), maker.script)
        for found, said in zip(ours.logits, maker.played.logits, strict=True):
            for a, b in zip(found, said, strict=True):
                assert float((a - b).abs().max()) < near * max(1.0, float(b.abs().max()))
        met.update(maker.reached)

    check()
    really_met(met, placed=0.2, siblings=0.15, patched=0.05)


def test_neighbours_that_are_placed_apart_are_not_read_as_one_run() -> None:
    """Short closed spans in a row, which without placement are joined."""
    made, rows = Engine(model("llama"), kv_tokens=512), [[7, 8, 9], [5, 4, 3], [1, 2, 6]]
    held = [made.block() for _ in rows]
    made.forward([Row(View(block), ids=ids) for block, ids in zip(held, rows, strict=True)])
    for at in ((None, None, None), (3, 3, None), (2, 9, 20), (None, 0, None), (None, None, 1)):
        spans = [Span(block, 0, 3, place) for block, place in zip(held, at, strict=True)]
        got = made.forward([Row(View(*spans, made.block()), ids=[11, 12])], every=True)
        oracle = Oracle(model("llama"))
        oracle.tick([([(n, 0, None)], ids) for n, ids in enumerate(rows)])
        oracle.tick([([*((n, 0, 3, place) for n, place in enumerate(at)), ("own", 0, None)], [11, 12])])
        assert got.every is not None
        assert float((oracle.solve().logits[-2:] - got.every[0]).abs().max()) < 1e-9


def test_what_is_in_a_window_is_decided_by_position() -> None:
    """Two siblings of 12 tokens take 12 positions: a window of 8 shows the last of both, none of the prompt."""
    made = Engine(model("mistral"), kv_tokens=512)
    window = made.shape.layers[0].window
    assert window is not None
    prompt, a, b = made.block(), made.block(), made.block()
    made.forward([Row(View(prompt), ids=list(range(4)))])
    made.forward([Row(View(prompt, one), ids=list(range(10, 10 + window + 4))) for one in (a, b)])

    def logits(*seen: Span | Block | Gap) -> torch.Tensor:
        return made.forward([Row(View(*seen, made.block()), ids=[5])]).logits[0]

    whole = logits(prompt, Span(a, at=4), Span(b, at=4))
    near = len(a) - window + 1
    last = [Span(one, near, None, at=4 + near) for one in (a, b)]
    assert float((whole - logits(*last)).abs().max()) < 1e-9
    assert float((whole - logits(last[1])).abs().max()) > 1e-3


def test_a_placed_view_of_saved_blocks(tmp_path: Path) -> None:
    made = Engine(model("gemma3"), kv_tokens=512)
    prompt, a, b = made.block("prompt"), made.block("a"), made.block("b")
    made.forward([Row(View(prompt), ids=[3, 1, 4, 1, 5])])
    made.forward([Row(View(prompt, a), ids=[9, 2, 6]), Row(View(prompt, b), ids=[5, 3, 5, 8])])
    before = made.forward([Row(View(prompt, Span(a, at=5), Span(b, at=5), made.block()), ids=[7, 9])], every=True)
    kept = [made.save(block, tmp_path / block.name) for block in (prompt, a, b)]
    other = Engine(model("gemma3"), kv_tokens=512, page_size=3)
    first, left, right = (other.load_block(path) for path in kept)
    again = other.forward(
        [Row(View(first, Span(left, at=5), Span(right, at=5), other.block()), ids=[7, 9])], every=True
    )
    assert before.every is not None
    assert again.every is not None
    assert float((before.every[0] - again.every[0]).abs().max()) < 1e-9


@settings(max_examples=20)
@given(data=st.data(), name=st.sampled_from(MODELS), page_size=st.sampled_from((1, 3, 16)))
def test_any_placed_view_of_saved_blocks(data: st.DataObject, name: str, page_size: int) -> None:
    """What random programs leave, in another engine: the same logits behind each view."""
    made, other = (Engine(model(name), kv_tokens=2048, page_size=size) for size in (4, page_size))
    maker = Places(data.draw, made, vocab=families.VOCAB, width=48)
    maker.make(data.draw(st.integers(3, 8)))
    loaded = {block.uid: reloaded(made, block, other) for block in maker.blocks}
    for view in maker.views[-3:]:
        shown = [i if isinstance(i, Gap) else Span(i.block, i.lo, i.lo + len(i), i.at) for i in view.items]
        again = [i if isinstance(i, Gap) else Span(loaded[i.block.uid], i.lo, i.hi, i.at) for i in shown]
        both = [
            engine.forward([Row(View(*items, engine.block()), ids=[7, 9])]).logits
            for engine, items in ((made, shown), (other, again))
        ]
        assert float((both[0] - both[1]).abs().max()) < 1e-9


# -- what is refused -----------------------------------------------------------------------------------------------


def test_a_row_writes_behind_all_that_it_sees() -> None:
    made = Engine(model("llama"), kv_tokens=512)
    a, b = made.block("a"), made.block("b")
    made.forward([Row(View(a), ids=[1, 2, 3, 4])])
    with pytest.raises(NotWritable, match="placed at position 2 and what it sees reaches to 4"):
        made.forward([Row(View(a, Span(b, at=2)), ids=[5])])
    assert len(b) == 0
    made.forward([Row(View(a, Span(b, at=4)), ids=[5])])
    with pytest.raises(NotWritable, match="reaches to 6"):  # as the other grows in the same tick
        made.forward([Row(View(a, Span(b, at=4)), ids=[5]), Row(View(a), ids=[7, 7])])
    assert [len(a), len(b)] == [4, 1]
    with pytest.raises(ViewError, match="takes no placed span"):
        made.compact([Span(a, at=0)], into=b)


def test_the_farthest_position_is_held_to_the_models_limit() -> None:
    made = toy_engine.fake(max_positions=40)
    prompt, a, b = made.block(), made.block(), made.block()
    made.forward([Row(View(prompt), ids=[1] * 10)])
    made.forward([Row(View(prompt, one), ids=[1] * 25) for one in (a, b)])
    beside = View(prompt, Span(a, at=10), Span(b, at=10), made.block())
    made.forward([Row(beside, ids=[1] * 5)])  # 60 tokens in 35 positions, and 5 more
    with pytest.raises(ViewTooLong, match="41 positions"):
        made.forward([Row(beside, ids=[1])])
    with pytest.raises(ViewTooLong, match="41 positions"):
        made.forward([Row(View(Span(prompt, at=30), made.block()), ids=[1])])


# -- runs ----------------------------------------------------------------------------------------------------------


@program("beside", "two who cannot see each other, and one behind both")
async def beside(run: Run, *, tokens: int = 4) -> str:
    prompt, writers = run.block("prompt"), run.workers[:2]
    await run.forward([Row(View(prompt), ids=run.chat(("user", run.task.prompt)))], [Cost(0)])
    start = run.chat(("user", "Go on."))
    for worker in writers:
        worker.view = View(prompt, run.block(worker.name))
        worker.feed(start)
    for _ in range(tokens):
        await run.tick(writers)
    last = run.workers[2]
    at = len(prompt)
    last.view = View(prompt, *(Span(worker.own, at=at) for worker in writers), run.block(last.name))
    last.feed(start)
    for _ in range(tokens):
        await run.tick([last])
    return last.text


@program("around", "the same behind what somebody has written")
async def around(run: Run) -> str | None:
    worker = run.workers[0]
    worker.view = View(run.block(worker.name))
    worker.feed(run.chat(("user", "Some words before.")))
    await run.tick([worker])
    return await inside(run, worker.view, beside, workers=3, name="within")


@pytest.mark.forward
def test_a_trace_says_where_a_span_is_placed() -> None:
    made = toy_engine.engine()
    result = made.run(beside, "What is it?", workers=3)
    items = next(e["items"] for e in reversed(result.trace.events) if e["event"] == "view")
    assert [len(item) for item in items] == [5, 6, 6, 5]
    assert [item[5] for item in items if len(item) == 6] == [items[0][4]] * 2


@pytest.mark.forward
def test_a_run_inside_another_is_placed_behind_what_it_stands_behind() -> None:
    made = toy_engine.engine()
    result = made.run(around, "What is it?", workers=1)
    items = next(e["items"] for e in reversed(result.trace.events) if e["event"] == "view")
    before, prompt = items[:2]
    assert before[2] is not None
    assert [item[5] for item in items if len(item) == 6] == [before[2] + prompt[4]] * 2
