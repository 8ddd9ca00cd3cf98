"""The plan of a tick: which new tokens meet which stored keys, and at which distance.

The views of a tick's rows are cut into *segments*: runs of stored tokens that the same rows see in the same
arrangement. Each stored token is in exactly one segment, so its key and value are read once per tick, however many
rows see it. A segment's keys stand in a *frame* of consecutive positions; a query that is rotated by ``delta`` sees the
key at frame position ``f`` at distance ``delta - f``.

One span alone keeps the keys as stored (frame position = index in the block). Neighbouring short closed spans are
joined to one segment whose keys are turned by ``shift`` as they are read; if they stay, they are copied side by side
(``copies``), so that a view of many short spans costs no more than a view of few long ones. Where a span begins in a
row's view, placed or not, is in the row's ``delta`` alone: placement changes no key and no kernel.

What depends on the views alone (the structure) is kept from tick to tick; only open ends are measured anew.
Covers geometry only; knows nothing of tensors of keys, heads or models.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kvorum.attention.joined_copies import Copies
from kvorum.attention.view_structure import Stretch, Structure, block_at, build
from kvorum.kv import View


@dataclass(eq=False)
class Segment:
    """Stored tokens that the same rows see in the same arrangement.

    ``slots``: where the keys are in the cache, a slice or int64 ``[length]``. ``first``: frame position of key 0.
    ``shift``: int64 ``[length]``, how far to rotate each stored key to bring it to its frame position, or None.
    ``masked``: some of the keys lie ahead of some of the queries and must be hidden from them. ``length`` may be 0.
    ``rows``: which rows of the tick see it. ``start`` to ``stop``: its part of the plan's ``queries`` and ``deltas``.
    ``everyone``: all new tokens of the tick see it.
    """

    slots: slice | Tensor
    first: int
    length: int
    shift: Tensor | None
    masked: bool
    rows: tuple[int, ...]
    queries: Tensor
    deltas: Tensor
    start: int
    stop: int
    everyone: bool

    @cached_property
    def tokens(self) -> Tensor | None:
        """Which new tokens of the tick see it, int64 ``[queries]``, or None for all."""
        return None if self.everyone else self.queries[self.start : self.stop]

    @cached_property
    def delta(self) -> Tensor:
        """By how much to rotate each query, int64 ``[queries]``; the distance to frame position f is delta - f."""
        return self.deltas[self.start : self.stop]


@dataclass(slots=True, eq=False)
class Plan:
    """Everything about a tick that all layers share.

    ``slots``, ``index``: int64 ``[tokens]``, where each new token is stored and its index in its block.
    ``counts``: new tokens per row. ``segments``: see above. ``queries``, ``deltas``: the segments' ``tokens`` and
    ``delta`` one behind the other, int64; ``ends``: where each segment's part of them ends.
    """

    slots: Tensor
    index: Tensor
    counts: tuple[int, ...]
    segments: tuple[Segment, ...]
    queries: Tensor
    deltas: Tensor
    ends: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """New tokens of all rows."""
        return sum(self.counts)

    @property
    def read(self) -> int:
        """Stored tokens whose keys and values the tick reads, each counted once."""
        return sum(segment.length for segment in self.segments)


REMEMBERED = 16
"""Sets of views whose structure is kept."""


class Planner:
    """Makes plans and remembers the structure of the latest sets of views. ``copies`` holds those of joined runs."""

    def __init__(self, copies: Copies | None = None) -> None:
        self.copies = copies
        self._known: OrderedDict[tuple[int, ...], Structure] = OrderedDict()

    def plan(self, views: Sequence[View], counts: Sequence[int], *, copied: bool = True) -> Plan:
        """The plan of a tick whose row i appends ``counts[i]`` tokens to the last block of ``views[i]``.

        The blocks must have been extended by these tokens already. ``copied``: joined runs may be read from copies; a
        tap tells keys by their slots and needs them where they were written.
        """
        structure = self._structure(views)
        layout = structure.layout(tuple(counts))
        begins, lengths = structure.measured(views)
        position = lengths[layout.row_of] + layout.place
        copies = self.copies if copied else None
        places = [_place(run, views, copies) for run in structure.runs]
        first = np.array([place[1] for place in places])
        starts = begins - first[structure.run_of]
        queries, ends = layout.queries, layout.ends
        deltas = position[queries] - starts[layout.start_of]
        lowest = np.minimum.reduceat(deltas, layout.begins)

        all_queries, all_deltas = torch.from_numpy(queries), torch.from_numpy(deltas)
        segments, start = [], 0
        for run, (slots, head, length, shift), stop, low in zip(
            structure.runs, places, ends, lowest.tolist(), strict=True
        ):
            masked, everyone = low < head + length - 1, len(run.rows) == len(views)
            segments.append(
                Segment(slots, head, length, shift, masked, run.rows, all_queries, all_deltas, start, stop, everyone)
            )
            start = stop
        slots, index = _new_places(views, counts)
        return Plan(slots, index, tuple(counts), tuple(segments), all_queries, all_deltas, ends)

    # -- structure ---------------------------------------------------------------------------------------------

    def _structure(self, views: Sequence[View]) -> Structure:
        key = tuple(map(id, views))
        known = self._known.get(key)
        if known is not None and all(ref() is view for ref, view in zip(known.views, views, strict=True)):
            self._known.move_to_end(key)
            return known
        structure = build(views)
        self._known[key] = structure
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return structure


def _place(
    run: Stretch, views: Sequence[View], copies: Copies | None
) -> tuple[slice | Tensor, int, int, Tensor | None]:
    """Slots, first frame position, length and shift of a run as it is now."""
    if run.slots is not None and run.shift is not None:
        copy = None if copies is None else copies.find(run.parts, run.slots, run.shift)
        return (run.slots, 0, len(run.slots), run.shift) if copy is None else (copy, 0, len(run.slots), None)
    block = block_at(views[run.row], run.item)
    hi = len(block) if run.hi is None else run.hi
    return block.table.slots(run.lo, hi), run.lo, hi - run.lo, None


def _new_places(views: Sequence[View], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    slots: list[int] = []
    index: list[int] = []
    for view, count in zip(views, counts, strict=True):
        block = block_at(view, -1)
        length = len(block)
        slots += block.table.places(length - count, length)
        index += range(length - count, length)
    return torch.from_numpy(np.array(slots)), torch.from_numpy(np.array(index))
