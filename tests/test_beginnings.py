"""The search for the longest known beginning of a prompt, beside looking at every prompt that is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvorum.kv import View
from kvorum.runs.beginnings import Beginnings
from kvorum.runs.kept_prompts import Entry

# Few and far ids: equal beginnings are common, and bytes must not sort as little-endian numbers would.
IDS = st.lists(st.sampled_from([0, 1, 255, 256, 70_000]), max_size=6)


def entry(ids: Sequence[int], first: int) -> Entry:
    """A kept prompt of these tokens."""
    return Entry(np.asarray(ids, dtype=np.int64), View(), asyncio.Future(loop=LOOP), first)


LOOP = asyncio.new_event_loop()


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens in common at the beginning, counted one by one."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


@given(
    st.lists(st.tuples(IDS, st.integers(0, 6), st.booleans()), max_size=12),
    st.lists(IDS, min_size=1, max_size=6),
    st.booleans(),
)
def test_as_by_looking_at_every_prompt(
    told: list[tuple[list[int], int, bool]], asked: list[list[int]], first: bool
) -> None:
    begun = Beginnings(first)
    kept, gone = list[tuple[list[int], Entry]](), list[tuple[list[int], Entry]]()
    for ids, count, goes in told:
        made = entry(ids, min(count, len(ids)))
        begun.add(made)
        (gone if goes else kept).append((ids[: made.first] if first else ids, made))
    for _, made in gone:
        begun.remove(made)
    assert len(begun) == len(kept)
    for ids in asked:
        best = max((common(known, ids) for known, _ in kept), default=0)
        found, length = begun.longest(ids)
        assert length == best
        if not best:
            assert found is None
            continue
        assert found is not None
        of = next(known for known, made in kept if made is found)
        assert common(of, ids) == best
        ends = [made for known, made in kept if known == ids[:best]]
        assert not ends or found is ends[0], "the oldest that ends there: a prompt that comes again is found whole"
