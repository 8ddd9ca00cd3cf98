"""The page pool and the blocks on it: pages are handed out once, kept adjacent where they can be, and come back.

Covers placement and the free list against a plain set, slots of scattered blocks, truncation, lifetimes by handle and
by view. Not covered: what is written into the slots (``test_forward_oracle.py``).
"""

from __future__ import annotations

import gc
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvorum import Block, Span, View
from kvorum.errors import BadRequest, OutOfPages
from kvorum.kv import CacheConfig, CacheShape, KVCache, PagePool

LAYERS = (CacheShape(2, 3, 5), CacheShape(1, 4, 4))


def pool(tokens: int = 64, page_size: int = 4) -> PagePool:
    return PagePool(CacheConfig(LAYERS, tokens, page_size))


@settings(max_examples=200)
@given(data=st.data())
def test_every_page_has_one_owner(data: st.DataObject) -> None:
    """Random takes and gives against a set of free pages."""
    made = pool(60, 3)
    free, held = set(range(20)), list[list[int]]()
    for _ in range(data.draw(st.integers(1, 25))):
        if bool(held) and data.draw(st.booleans()):
            pages = held.pop(data.draw(st.integers(0, len(held) - 1)))
            free |= set(pages)
            made.give(pages)
            assert pages == []
        else:
            count = data.draw(st.integers(1, 6))
            after = held[-1][-1] if bool(held) and data.draw(st.booleans()) else None
            if count > len(free):
                with pytest.raises(OutOfPages):
                    made.take(count, after)
            else:
                pages = made.take(count, after)
                assert len(set(pages)) == count
                assert set(pages) <= free
                if after is not None and after + 1 in free:
                    assert pages[0] == after + 1
                free -= set(pages)
                held.append(pages)
        assert made.free == len(free)
        assert made.free_tokens == 3 * len(free)
    for pages in held:
        made.give(pages)
    assert sorted(made.take(20)) == list(range(20))


def test_two_blocks_that_grow_in_turns_stay_adjacent() -> None:
    """Placement leaves room, so each block is one slice: that is what makes reading it cheap."""
    made = pool(256, 4)
    a, b = Block(made), Block(made)
    for _ in range(40):
        a.append([1])
        b.append([2])
    for block in (a, b):
        whole = block.table.slots(0, 40)
        assert isinstance(whole, slice)
        assert whole.stop - whole.start == 40


@settings(max_examples=100)
@given(page_size=st.integers(1, 5), growth=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 7)), max_size=20))
def test_slots_of_scattered_blocks(page_size: int, growth: list[tuple[int, int]]) -> None:
    """The slots of all tokens are distinct, lie in the block's pages and are the same however they are asked for."""
    made = pool(200, page_size)
    made.give(made.take(made.pages)[::2])
    made_blocks = [Block(made) for _ in range(3)]
    for at, count in growth:
        if made_blocks[at].pages_needed(count) <= made.free:
            made_blocks[at].append([0] * count)
    taken: set[int] = set()
    for block in made_blocks:
        slots = block.table.slot_tensor(0, len(block)).tolist()
        assert len(set(slots)) == len(slots) == len(block)
        assert not taken & set(slots)
        taken |= set(slots)
        for lo in range(len(block)):
            for hi in (lo + 1, len(block)):
                found = block.table.slots(lo, hi)
                spelled = list(range(found.start, found.stop)) if isinstance(found, slice) else found.tolist()
                assert spelled == slots[lo:hi]
    assert all(0 <= slot < made.pages * page_size for slot in taken)


def test_pages_come_back_with_the_last_handle_and_view() -> None:
    made = pool(64, 4)
    block = Block(made)
    block.append(range(10))
    assert made.free == 13
    view = View(Span(block, 0, 3))
    fork = view.fork(2, Block(made))
    del block
    gc.collect()
    assert made.free == 13
    del view
    gc.collect()
    assert made.free == 13
    del fork
    gc.collect()
    assert made.free == 16


@settings(max_examples=100)
@given(st.integers(1, 5), st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 20))
def test_a_sealed_block_keeps_no_page_that_it_does_not_use(size: int, growth: list[int], reserved: int) -> None:
    """Its tokens stay where they were, in pieces too."""
    made = pool(120 * size, size)
    block, other = Block(made), Block(made)
    for count in growth:
        block.append(range(count))
        other.append(range(count))
    block.reserve(reserved)
    before = block.table.slot_tensor(0, len(block)).tolist()
    held = len(other.table)
    block.seal()
    assert block.table.slot_tensor(0, len(block)).tolist() == before
    at = block.table.slots(0, len(block))
    assert (list(range(at.start, at.stop)) if isinstance(at, slice) else at.tolist()) == before
    assert len(block.table) == -(-len(block) // size)
    assert made.free == 120 - held - len(block.table)
    del block
    gc.collect()
    assert made.free == 120 - held


def test_a_full_pool_refuses_and_changes_nothing() -> None:
    made = pool(16, 4)
    a, b = Block(made), Block(made)
    a.append(range(9))
    with pytest.raises(OutOfPages, match=r"8 more token slots are needed and 4 of 16 are free"):
        b.append(range(5))
    assert (len(b), b.table.capacity, made.free) == (0, 0, 1)
    b.append(range(4))
    assert made.free == 0
    a.append(range(3))  # the last page of a had room
    with pytest.raises(OutOfPages):
        a.append([1])
    assert len(a) == 12


def test_truncated_tokens_can_be_written_again() -> None:
    made = pool(32, 4)
    block = Block(made)
    block.append(range(6))
    slots = block.table.slot_tensor(0, 6).tolist()
    block.truncate(3)
    assert block.ids == [0, 1, 2]
    free = made.free
    block.append([7, 8, 9])
    assert made.free == free
    assert block.table.slot_tensor(0, 6).tolist() == slots
    assert block.ids == [0, 1, 2, 7, 8, 9]


def test_write_lands_in_the_slots_and_nowhere_else() -> None:
    made = KVCache(CacheConfig(LAYERS, 16, 4))
    for tensor in (*made.keys, *made.values):
        tensor.zero_()
    keys, values = torch.randn(2, 3, 3), torch.randn(2, 3, 5)
    made.write(0, torch.tensor([7, 2, 11]), keys, values)
    assert torch.equal(made.keys[0][:, [7, 2, 11]], keys)
    assert torch.equal(made.values[0][:, [7, 2, 11]], values)
    rest = [slot for slot in range(16) if slot not in (2, 7, 11)]
    assert not made.keys[0][:, rest].any()
    assert not made.keys[1].any()


def test_sizes() -> None:
    config = CacheConfig(LAYERS, 30, 8, torch.float64)
    made, cache = PagePool(config), KVCache(config)
    assert made.pages == 4
    assert made.bytes_per_token == (2 * 8 + 8) * 8
    assert cache.keys[0].shape == (2, 32, 3)
    assert cache.values[1].shape == (1, 32, 4)
    for tokens, page_size in ((0, 4), (4, 0), (-1, 4)):
        with pytest.raises(BadRequest):
            pool(tokens, page_size)


def test_ids_are_a_copy() -> None:
    block = Block(pool())
    block.append([1, 2])
    block.ids.append(3)
    assert len(block) == 2
    assert block.ids == [1, 2]


def test_blocks_may_die_in_the_middle_of_an_operation() -> None:
    """The collector may run anywhere, and with it the finalizers of blocks that only a cycle holds."""
    before = gc.get_threshold()
    choose = random.Random(3)
    try:
        for threshold in (3, 7, 20):
            gc.set_threshold(threshold, 3, 3)
            made = pool(8192)
            alive: list[Block] = []
            for _ in range(600):
                block = Block(made)
                block.append([1] * choose.randrange(1, 40))
                if choose.random() < 0.5:
                    alive.append(block)
                else:
                    block.loop = block  # type: ignore[attr-defined]
                while len(alive) > 20:
                    alive.pop(choose.randrange(len(alive)))
                held = [slot for each in alive for slot in each.table.places(0, len(each))]
                assert len(set(held)) == len(held)
            del block
            alive.clear()
            gc.collect()
            assert made.free == made.pages
    finally:
        gc.set_threshold(*before)
