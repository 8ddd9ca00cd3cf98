"""Every named error of views, rows and pages: raised before anything is written, and the engine goes on after it.

"Nothing is written" means: all ids, all lengths, the free pages, the ledger and every byte of keys and values that
belongs to a token are what they were. A full pool, and what breaks in the middle of a forward, are in
``test_errors_midway.py``, errors of files in ``test_storage.py``, of models in ``test_rope_probe.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from families import VOCAB, build
from kvorum import Block, Cost, Engine, Gap, Row, Span, View
from kvorum.engine.tick_result import TickResult
from kvorum.errors import (
    BadRow,
    ForeignBlock,
    KvorumError,
    NotWritable,
    OutOfPages,
    SealedBlock,
    SeenTwice,
    SpanOutOfRange,
    TwoWriters,
    ViewError,
    ViewTooLong,
)
from unchanged import ONE, filled, goes_on, new, refused


@pytest.fixture
def engine() -> Engine:
    return new()


LONGROPE = build("phi3-longrope")  # exact up to 64 positions

Bad = Callable[[Engine, Block, Block], Sequence[Row]]

BAD_ROWS: dict[str, tuple[type[KvorumError], Bad]] = {
    "no-rows": (BadRow, lambda e, a, b: []),
    "no-tokens": (BadRow, lambda e, a, b: [Row(View(a), ids=[])]),
    "no-embeddings": (BadRow, lambda e, a, b: [Row(View(a), embeds=torch.zeros(0, 48))]),
    "neither": (BadRow, lambda e, a, b: [Row(View(a))]),
    "both": (BadRow, lambda e, a, b: [Row(View(a), ids=ONE, embeds=torch.zeros(1, 48))]),
    "wrong-width": (BadRow, lambda e, a, b: [Row(View(a), embeds=torch.zeros(1, 47))]),
    "flat": (BadRow, lambda e, a, b: [Row(View(a), embeds=torch.zeros(48))]),
    "not-finite": (BadRow, lambda e, a, b: [Row(View(a), embeds=torch.full((1, 48), torch.nan))]),
    "id-too-large": (BadRow, lambda e, a, b: [Row(View(a), ids=[VOCAB])]),
    "negative-id": (BadRow, lambda e, a, b: [Row(View(a), ids=[-1])]),
    "fraction": (BadRow, lambda e, a, b: [Row(View(a), ids=[1.7])]),  # type: ignore[list-item]
    "fractions": (BadRow, lambda e, a, b: [Row(View(a), ids=torch.tensor([1.0]))]),  # type: ignore[arg-type]
    "text": (BadRow, lambda e, a, b: [Row(View(a), ids="abc")]),  # type: ignore[arg-type]
    "one-id": (BadRow, lambda e, a, b: [Row(View(a), ids=3)]),  # type: ignore[arg-type]
    "whole-embeddings": (BadRow, lambda e, a, b: [Row(View(a), embeds=torch.zeros(1, 48, dtype=torch.long))]),
    "complex": (BadRow, lambda e, a, b: [Row(View(a), embeds=torch.zeros(1, 48, dtype=torch.complex64))]),
    "list-of-embeddings": (BadRow, lambda e, a, b: [Row(View(a), embeds=[[0.0] * 48])]),  # type: ignore[arg-type]
    "block-for-a-view": (ViewError, lambda e, a, b: [Row(a, ids=ONE)]),  # type: ignore[arg-type]
    "no-row": (ViewError, lambda e, a, b: [View(a)]),  # type: ignore[list-item]
    "second-row-empty": (BadRow, lambda e, a, b: [Row(View(a), ids=ONE), Row(View(b), ids=[])]),
    "empty-view": (NotWritable, lambda e, a, b: [Row(View(), ids=ONE)]),
    "closed-end": (NotWritable, lambda e, a, b: [Row(View(a), ids=ONE), Row(View(Span(b, 0, 3)), ids=ONE)]),
    "gap-last": (NotWritable, lambda e, a, b: [Row(View(a, Gap(1)), ids=ONE)]),
    "sealed": (SealedBlock, lambda e, a, b: [Row(View(a), ids=ONE), Row(View(b.seal()), ids=ONE)]),
    "two-writers": (TwoWriters, lambda e, a, b: [Row(View(a), ids=ONE), Row(View(b, a), ids=ONE)]),
    "foreign-own": (ForeignBlock, lambda e, a, b: [Row(View(a), ids=ONE), Row(View(new(16).block()), ids=ONE)]),
    "foreign-seen": (ForeignBlock, lambda e, a, b: [Row(View(new(16).block(), a), ids=ONE)]),
    "too-many": (OutOfPages, lambda e, a, b: [Row(View(a), ids=ONE), Row(View(b), ids=[3] * 150)]),
    "too-many-in-sum": (OutOfPages, lambda e, a, b: [Row(View(a), ids=[3] * 80), Row(View(b), ids=[3] * 80)]),
}


@pytest.mark.parametrize(("ids", "said"), [([5, VOCAB], f"Row 0: {VOCAB} is no"), ([1.7], r"not \[1\.7\]")])
def test_a_wrong_id_is_named_with_the_range(engine: Engine, ids: Sequence[int], said: str) -> None:
    with pytest.raises(BadRow, match=said) as caught:
        engine.forward([Row(View(engine.block()), ids=ids)])
    assert f"from 0 to {VOCAB - 1}" in str(caught.value)


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_tick_that_cannot_be(engine: Engine, case: str) -> None:
    error, make = BAD_ROWS[case]
    a, b = filled(engine, 5, 3)
    rows = make(engine, a, b)
    with refused(engine, (a, b), error):
        engine.forward(rows)
    goes_on(engine, (a, b))


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_tick_that_cannot_be_from_a_coroutine(engine: Engine, case: str) -> None:
    """The scheduler refuses the same, to the caller alone; the others' rows go on."""
    error, make = BAD_ROWS[case]
    a, b = filled(engine, 5, 3)
    c = engine.block()
    rows = make(engine, a, b)

    async def both() -> tuple[TickResult | BaseException, TickResult | BaseException]:
        bad = engine.scheduler.submit(rows, [Cost()] * len(rows))
        good = engine.scheduler.submit([Row(View(c), ids=[4, 5])], [Cost()])
        return await asyncio.gather(bad, good, return_exceptions=True)

    before = [block.ids for block in (a, b)]
    failed, reply = asyncio.run(both())
    assert type(failed) is error
    assert not isinstance(reply, BaseException)
    assert [block.ids for block in (a, b)] == before
    assert c.ids == [4, 5]
    goes_on(engine, (a, b, c))


BAD_VIEWS: dict[str, tuple[type[KvorumError], Callable[[Block, Block], object]]] = {
    "beyond": (SpanOutOfRange, lambda a, b: Span(a, 0, 6)),
    "open-beyond": (SpanOutOfRange, lambda a, b: Span(a, 6)),
    "negative": (SpanOutOfRange, lambda a, b: Span(a, -1, 2)),
    "reversed": (SpanOutOfRange, lambda a, b: Span(a, 3, 2)),
    "negative-gap": (SpanOutOfRange, lambda a, b: Gap(-1)),
    "twice": (SeenTwice, lambda a, b: View(a, b, a)),
    "overlap": (SeenTwice, lambda a, b: View(Span(a, 0, 3), b, Span(a, 2, 5))),
    "one-token": (SeenTwice, lambda a, b: View(Span(a, 2, 3), Span(a, 2, 3))),
    "overlap-with-open-end": (SeenTwice, lambda a, b: View(Span(a, 0, 3), b, Span(a, 2))),
    "behind-open-end": (SeenTwice, lambda a, b: View(Span(a, 2), b, Span(a, 4, 5))),
    "two-open-ends": (SeenTwice, lambda a, b: View(Span(a, 5), b, Span(a, 5))),
    "fraction": (ViewError, lambda a, b: Span(a, 0.5)),  # type: ignore[arg-type]
    "fraction-of-an-end": (ViewError, lambda a, b: Span(a, 0, 2.5)),  # type: ignore[arg-type]
    "span-of-text": (ViewError, lambda a, b: Span("a")),  # type: ignore[arg-type]
    "fraction-of-a-gap": (ViewError, lambda a, b: Gap(2.5)),  # type: ignore[arg-type]
    "fork-at-a-fraction": (ViewError, lambda a, b: View(a).fork(1.5, b)),  # type: ignore[arg-type]
    "gap-from-none": (ViewError, lambda a, b: View(a).gap(None, 2)),  # type: ignore[arg-type]
    "no-item": (ViewError, lambda a, b: View(a, [3, 4])),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD_VIEWS)
def test_a_view_that_cannot_be(engine: Engine, case: str) -> None:
    error, make = BAD_VIEWS[case]
    a, b = filled(engine, 5, 3)
    with refused(engine, (a, b), error):
        make(a, b)
    goes_on(engine, (a, b))


def test_disjoint_spans_of_one_block_are_fine(engine: Engine) -> None:
    a, b = filled(engine, 5, 3)
    view = View(Span(a, 3, 5), b, Span(a, 0, 2), Span(a, 2, 2), Span(a, 5))
    engine.forward([Row(view, ids=[7])])
    assert a.ids[5:] == [7]


BAD_MOVES: dict[str, tuple[type[KvorumError], Callable[[Engine, Block, Block], object]]] = {
    "sealed": (SealedBlock, lambda e, a, b: e.compact([a], into=b.seal())),
    "itself": (SeenTwice, lambda e, a, b: e.compact([b, Span(a, 0, 2)], into=a)),
    "foreign": (ForeignBlock, lambda e, a, b: e.compact([a, new(16).block()], into=b)),
    "foreign-target": (ForeignBlock, lambda e, a, b: e.compact([a], into=new(16).block())),
    "all-foreign": (ForeignBlock, lambda e, a, b: e.compact([a], into=new(16).block())),
    "save-foreign": (ForeignBlock, lambda e, a, b: e.save(new(16).block(), "/tmp/never")),
    "gap": (ViewError, lambda e, a, b: e.compact([a, Gap(2)], into=b)),  # type: ignore[list-item]
    "full": (OutOfPages, lambda e, a, b: e.compact([a] * 40, into=b)),
}


@pytest.mark.parametrize("case", BAD_MOVES)
def test_a_move_that_cannot_be(engine: Engine, case: str) -> None:
    error, make = BAD_MOVES[case]
    a, b = filled(engine, 5, 3)
    if case == "sealed":
        b.seal()
    with refused(engine, (a, b), error):
        make(engine, a, b)
    goes_on(engine, (a, b))


def test_a_view_beyond_the_models_reach() -> None:
    """The limit counts gaps, what other rows of the tick append, and the new tokens; reaching it exactly is fine."""
    engine = Engine(LONGROPE, kv_tokens=256, page_size=4)
    assert engine.shape.max_positions == 64
    a, b, c = filled(engine, 30, 20, 0)
    for rows in (
        [Row(View(a, b, c), ids=[3] * 15)],
        [Row(View(a, Gap(14), b, c), ids=[3])],
        [Row(View(a, b, c), ids=[3] * 10), Row(View(b), ids=[3] * 5)],
    ):
        with refused(engine, (a, b, c), ViewTooLong, "64"):
            engine.forward(rows)
    engine.forward([Row(View(a, b, c), ids=[3] * 10), Row(View(b), ids=[3] * 4)])
    assert (len(b), len(c)) == (24, 10)


# -- failures in the middle --------------------------------------------------------------------------------------


def test_places_may_be_numpys(engine: Engine) -> None:
    a, b = filled(engine, 5, 3)
    span = Span(a, np.int64(1), np.int32(4))  # type: ignore[arg-type]
    assert (type(span.lo), type(span.hi), type(Gap(np.int64(2)).length)) == (int, int, int)  # type: ignore[arg-type]
    engine.forward([Row(View(span, b), ids=np.array([3, 4]))])  # type: ignore[arg-type]
    engine.forward([Row(View(span, b), ids=torch.tensor([3, 4]))])  # type: ignore[arg-type]
    assert b.ids[-4:] == [3, 4, 3, 4]
