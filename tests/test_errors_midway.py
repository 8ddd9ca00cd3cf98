"""Ticks that have no room, or break half way, leave everything as it was."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from kvorum import Cost, Engine, Row, Span, View
from kvorum.errors import (
    OutOfPages,
)
from unchanged import MODEL, ONE, contents, equal, filled, goes_on, new, refused


@pytest.fixture
def engine() -> Engine:
    return new()


# -- no room -----------------------------------------------------------------------------------------------------


def test_the_same_tick_runs_once_room_is_made(engine: Engine) -> None:
    a, b, ballast = filled(engine, 5, 3, 130)
    rows = [Row(View(b, a), ids=[3] * 20), Row(View(a, b), ids=[4] * 10)]
    with refused(engine, (a, b, ballast), OutOfPages, "free"):
        engine.forward(rows)
    del ballast
    gc.collect()
    out = engine.forward(rows)
    roomy = new(400)
    c, d = filled(roomy, 5, 3)
    expected = roomy.forward([Row(View(d, c), ids=[3] * 20), Row(View(c, d), ids=[4] * 10)])
    assert torch.allclose(out.logits, expected.logits, atol=1e-4)


def test_a_full_pool_stops_a_stream_cleanly(engine: Engine) -> None:
    """Everything that decode yielded before stays, but for the token that found no room."""
    (a,) = filled(engine, 100)
    own = engine.block()
    got: list[int] = []

    async def go(view: View) -> None:
        async for token in engine.decode(view, ids=[3]):
            got.append(int(token))

    with pytest.raises(OutOfPages):
        asyncio.run(go(View(a, own)))
    assert own.ids == [3, *got[:-1]]
    assert len(own) == 60
    assert len(a) == 100
    assert engine.pool.free == 0
    del own
    gc.collect()
    goes_on(engine, (a,))


def test_pages_return_when_the_last_view_is_gone(engine: Engine) -> None:
    free = engine.pool.free
    a, b = filled(engine, 9, 6)
    own = engine.block()
    view = View(Span(a, 0, 2), b, own)
    engine.forward([Row(view, ids=ONE)])
    del a, b, own
    gc.collect()
    assert engine.pool.free == free - 3 - 2 - 1
    del view
    gc.collect()
    assert engine.pool.free == free, "the engine, its plans or its last output keep blocks alive"


# -- failures in the middle --------------------------------------------------------------------------------------


@contextmanager
def breaking(error: BaseException, after: int = 1) -> Iterator[None]:
    """The model's last layer raises ``error`` at its call number ``after``."""
    calls = 0

    def hook(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise error

    handle = MODEL.model.layers[-1].register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_a_forward_that_breaks_leaves_the_blocks(engine: Engine, error: BaseException) -> None:
    a, b = filled(engine, 5, 3)
    with breaking(error):
        before = contents(engine, (a, b))
        with pytest.raises(type(error)):
            engine.forward([Row(View(a, b), ids=[7]), Row(View(b, a), ids=[8, 9])])
    assert equal(contents(engine, (a, b)), before)  # so few new tokens needed no page
    goes_on(engine, (a, b))


def test_a_long_prefill_that_breaks_half_way() -> None:
    engine = new(prefill_chunk=8)
    a, b = filled(engine, 5, 3)
    ids, logits = a.ids, a.logits
    assert logits is not None
    logits = logits.clone()
    with breaking(RuntimeError("no memory"), after=3), pytest.raises(RuntimeError):
        engine.forward([Row(View(b, a), ids=[7] * 30)])
    assert a.ids == ids
    assert a.logits is not None
    assert torch.equal(a.logits, logits)
    goes_on(engine, (a, b))


def test_a_long_prefill_from_a_coroutine_that_breaks_half_way() -> None:
    engine = new(prefill_chunk=8)
    a, b = filled(engine, 5, 3)
    ids = a.ids
    with breaking(RuntimeError("no memory"), after=3), pytest.raises(RuntimeError):
        asyncio.run(engine.scheduler.submit([Row(View(b, a), ids=[7] * 30)], [Cost()]))
    assert a.ids == ids
    goes_on(engine, (a, b))


def test_a_long_prefill_whose_room_is_taken_half_way() -> None:
    """Two long prefills fit one by one and not together: one of them is refused whole."""
    engine = new(prefill_chunk=8)
    a, b = engine.block("a"), engine.block("b")

    async def both() -> list[Any]:
        rows = [Row(View(a), ids=[7] * 90), Row(View(b), ids=[8] * 90)]
        return await asyncio.gather(*(engine.scheduler.submit([row], [Cost()]) for row in rows), return_exceptions=True)

    replies = asyncio.run(both())
    assert sorted(type(reply).__name__ for reply in replies) == ["OutOfPages", "TickResult"]
    assert sorted((len(a), len(b))) == [0, 90]


def test_a_move_that_breaks_leaves_the_target(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = filled(engine, 5, 3)
    ids, logits = b.ids, b.logits
    write = torch.Tensor.index_copy_
    written: list[torch.Tensor] = []

    def fail(into: torch.Tensor, *rest: Any) -> torch.Tensor:
        if written:
            raise KeyboardInterrupt
        written.append(into)
        return write(into, *rest)

    monkeypatch.setattr(torch.Tensor, "index_copy_", fail)
    with pytest.raises(KeyboardInterrupt):
        engine.compact([a], into=b)
    monkeypatch.undo()
    assert b.ids == ids
    assert b.logits is logits
    goes_on(engine, (a, b))
