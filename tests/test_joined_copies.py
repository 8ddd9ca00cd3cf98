"""Copies of joined runs, on random models in float64 (plain torch) and float32 (native kernels).

Covers: copied and uncopied runs give the same bits, whatever the page size; sealed blocks are joined like closed spans;
loans count as free, are bounded, and are taken back when blocks need their pages, with the same results afterwards.
Does not cover speed, which `kvorum bench --spans` measures.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import toy_engine
from kvorum import Block, Engine, Row, Span, View
from kvorum.attention import joined_copies
from kvorum.engine.owners import Owners
from kvorum.errors import OutOfPages
from kvorum.kv import CacheConfig, CacheShape, PagePool

AFTER = 3


@pytest.fixture(autouse=True)
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_copies, "AFTER", AFTER)


def engine(dtype: torch.dtype, page_size: int = 16, kv_tokens: int = 4096) -> Engine:
    return Engine(toy_engine.model(dtype), toy_engine.tokenizer(), kv_tokens=kv_tokens, page_size=page_size)


def pieces(made: Engine, count: int = 12) -> list[Block]:
    """Sealed blocks of 3 to 9 tokens."""
    blocks = []
    for at in range(count):
        block = made.block()
        made.forward([Row(View(block), ids=[(7 * at + i) % 250 for i in range(3 + at % 7)])])
        blocks.append(block.seal())
    return blocks


def ticks(made: Engine, blocks: list[Block], count: int = 8) -> list[torch.Tensor]:
    """Two workers, one of which sees the run behind one more block; logits of each tick."""
    front = made.block()
    made.forward([Row(View(front), ids=[5, 6, 7])])
    views = [View(*blocks, made.block()), View(front.seal(), *blocks, made.block())]
    return [made.forward([Row(view, ids=[n + 1]) for view in views]).logits.clone() for n in range(count)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_same_bits(dtype: torch.dtype, page_size: int) -> None:
    plain, copied = engine(dtype, page_size), engine(dtype, page_size)
    plain.executor.planner.copies = None
    expected, got = ticks(plain, pieces(plain)), ticks(copied, pieces(copied))
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert copied.executor.planner.copies is not None
    assert copied.executor.planner.copies.made, "the runs were copied"
    assert any(not torch.equal(a, b) for a, b in pairwise(got))


def test_sealed_blocks_are_joined() -> None:
    made = engine(torch.float64)
    blocks = pieces(made)
    own = made.block()
    own.append([1])
    whole = made.executor.planner.plan([View(*blocks, own)], [1])
    spans = made.executor.planner.plan([View(*(Span(block, 0, len(block)) for block in blocks), own)], [1])
    assert [s.length for s in whole.segments] == [s.length for s in spans.segments] == [sum(map(len, blocks)), 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loans_are_taken_back(dtype: torch.dtype) -> None:
    made, plain = engine(dtype, kv_tokens=1024), engine(dtype, kv_tokens=1024)
    plain.executor.planner.copies = None
    blocks, others = pieces(made), pieces(plain)
    before = made.pool.free_tokens
    views = [View(*b, e.block()) for b, e in ((blocks, made), (others, plain))]
    for n in range(AFTER + 1):
        first = made.forward([Row(views[0], ids=[n])]).logits
        assert torch.equal(first, plain.forward([Row(views[1], ids=[n])]).logits)
    assert made.executor.planner.copies is not None
    ((loan, _),) = made.executor.planner.copies.made.values()
    assert loan
    assert made.pool.free_tokens == before - 16, "only the workers' own page is gone"
    hungry = made.block()
    hungry.append(range(made.pool.free_tokens))
    assert not loan
    assert made.pool.free == 0
    with pytest.raises(OutOfPages):
        hungry.append([1])
    for n in range(2 * AFTER):
        first = made.forward([Row(views[0], ids=[n])]).logits
        assert torch.equal(first, plain.forward([Row(views[1], ids=[n])]).logits)


def test_loans() -> None:
    pool = PagePool(CacheConfig((CacheShape(1, 4, 4),), 64, page_size=4))
    assert pool.lend(9) == [], "at most half of what is free"
    loan, more = pool.lend(5), pool.lend(3)
    assert (len(loan), len(more), pool.free, pool.unused) == (5, 3, 16, 16)
    assert pool.lend(1) == []
    pool.returned.append(more)  # as a block leaves it that is gone
    assert pool.unused == 16, "a loan that came back is counted once"
    assert (pool.free, more) == (16, [])
    more = pool.lend(3)
    taken = pool.take(8)
    assert not {*taken} & {*loan, *more}, "loans stay while there is room beside them"
    pool.give(more)
    assert (more, pool.free) == ([], 8)
    assert pool.lend(0) == []
    rest = pool.take(8)
    assert (loan, pool.free) == ([], 0)
    assert sorted(taken + rest) == list(range(16))


def test_a_tap_sees_the_writers_of_copied_tokens() -> None:
    seen = []
    for copied in (True, False):
        made = engine(torch.float32)
        if not copied:
            made.executor.planner.copies = None
        blocks, owners = pieces(made), Owners(1)
        for at, block in enumerate(blocks):
            owners.credit(block, "AB"[at % 2])
        view = View(*blocks, made.block())
        for n in range(AFTER + 1):
            made.forward([Row(view, ids=[n])])
        out = made.forward([Row(view, ids=[9])], owners=owners)
        assert out.attention is not None
        seen.append(out.attention[0])
    assert seen[0] is not None
    assert seen[1] is not None
    assert torch.equal(seen[0], seen[1])
    assert bool((seen[0][:, 1:] > 0).all())
