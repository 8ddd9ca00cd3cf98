"""A plan as the few tables of whole numbers that the Triton kernels read, in one int32 array for one copy to the GPU.

Every segment is cut into *items*: at most ``width`` of its queries times a range of its keys. The ranges are as long as
the machine's programs allow, so that a long span is shared between processors and many short ones stay whole. Each
(item, query) leaves one partial result; each token has the list of its own. A tick whose partial results would take
too much room goes through in *passes* of fewer tokens.

An array may be larger than what is in it: ``packed`` pads it so that the padding does nothing (no item with keys, no
slot, no result), which is what static shapes need. Plain NumPy; knows nothing of triton or devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from kvorum.attention.plan import Plan

Ints = npt.NDArray[np.int64]

SHORTEST = 128
"""Keys that a range has at least, where the segment has as many: below it the merge costs more than the sharing."""

_ALIGN = 4  # int32 numbers: sections begin at 16 bytes
_FIELDS = 8  # of an item; see kernels.FIELDS


class Sizes(NamedTuple):
    """How many new tokens, queries of items, items, partial results and gathered slots there are, or room for."""

    tokens: int
    queries: int
    items: int
    parts: int
    gathered: int

    def rounded(self) -> Sizes:
        """Each up to the next power of two, 0 stays: a bucket that many ticks fit into."""
        return Sizes(*(power(size) if size else 0 for size in self))


T = TypeVar("T")


class Columns(NamedTuple, Generic[T]):
    """The tables of a pass, or one thing of each, in the order in which they are packed.

    int64 each: ``slots``, ``indices`` in the block ``[tokens]``; ``queries`` (tokens), ``deltas`` ``[queries]``;
    ``items [items, 8]``; ``gathered`` (slots), ``shifts`` ``[gathered]``; ``ends [tokens + 1]`` into ``parts [parts]``,
    the results of each token.
    """

    slots: T
    indices: T
    deltas: T
    shifts: T
    queries: T
    items: T
    gathered: T
    ends: T
    parts: T


def sections(room: Sizes) -> Columns[slice]:
    """Where each table is in a packed array with that much room."""
    tokens, queries, items, parts, gathered = room
    lengths = (tokens, tokens, queries, gathered, queries, items * _FIELDS, gathered, tokens + 1, parts)
    made, start = [], 0
    for length in lengths:
        stop = start + -(-length // _ALIGN) * _ALIGN
        made.append(slice(start, stop))
        start = stop
    return Columns(*made)


StaticKey: TypeAlias = "tuple[Sizes, int, bool]"
"""What plans must agree in to share buffers: padded sizes, the width of an item, and whether keys are turned."""


@dataclass(frozen=True, eq=False, slots=True)
class Tables:
    """One pass.

    ``first``: its first token in the tick; tokens count from there. ``width``: most queries of an item. ``turned``:
    some gathered keys are shifted.
    """

    first: int
    width: int
    turned: bool
    columns: Columns[Ints]

    @property
    def sizes(self) -> Sizes:
        """How many entries each table holds."""
        of = self.columns
        return Sizes(len(of.slots), len(of.queries), len(of.items), len(of.parts), len(of.gathered))

    def packed(self, room: Sizes) -> npt.NDArray[np.int32]:
        """The tables in one array with that much room, padded."""
        assert all(has <= may for has, may in zip(self.sizes, room, strict=True))
        places = sections(room)
        array = np.zeros(places.parts.stop, dtype=np.int32)
        array[places.slots] = -1
        array[places.ends] = len(self.columns.parts)
        for table, place in zip(self.columns, places, strict=True):
            array[place.start : place.start + table.size] = table.ravel()
        return array


def power(size: int) -> int:
    """The next power of two, from 1 on."""
    return 1 << max(0, size - 1).bit_length()


class Cuts(NamedTuple):
    """How plans are cut into tables on one machine: with the same cuts, a plan has the same tables everywhere.

    ``most``: queries that an item may have. ``programs``: items that keep the machine busy; keys are shared among so
    many. ``parts``: partial results that a pass may have; a token alone may have more.
    """

    most: int
    programs: int
    parts: int

    def tables(self, plan: Plan) -> list[Tables]:
        """The passes of a plan, usually one."""
        spans = _Spans.of(plan)
        whole = spans.tables(plan, 0, plan.tokens, self.most, self.programs)
        if len(whole.columns.parts) <= self.parts or plan.tokens == 1:
            return [whole]
        step = max(1, plan.tokens * self.parts // len(whole.columns.parts))
        ranges = ((at, min(at + step, plan.tokens)) for at in range(0, plan.tokens, step))
        return [spans.tables(plan, lo, hi, self.most, self.programs) for lo, hi in ranges]

    def key(self, plan: Plan) -> StaticKey | None:
        """Which buffers suit a plan; None: it takes several passes."""
        return static_key(self.tables(plan))

    @classmethod
    def for_all(cls, machines: Iterable[Cuts]) -> Cuts:
        """Cuts that all machines can work with, those that they have where they have the same."""
        most, programs, parts = zip(*machines, strict=True)
        return cls(min(most), max(programs), min(parts))


def static_key(passes: Sequence[Tables]) -> StaticKey | None:
    """``Cuts.key`` of tables that are there."""
    return (passes[0].sizes.rounded(), passes[0].width, passes[0].turned) if len(passes) == 1 else None


@dataclass(frozen=True, eq=False, slots=True)
class _Spans:
    """The plan's segments in columns. ``base``: first slot, or -1 gathered, -2 gathered and turned."""

    length: Ints
    first: Ints
    base: Ints
    place: Ints
    gathered: Ints
    shifts: Ints

    @classmethod
    def of(cls, plan: Plan) -> _Spans:
        lines, slots, shifts, place = [], [_zeros(0)], [_zeros(0)], 0
        for segment in plan.segments:
            if isinstance(segment.slots, slice):
                lines.append((segment.length, segment.first, segment.slots.start, 0))
                continue
            lines.append((segment.length, segment.first, -1 if segment.shift is None else -2, place))
            slots.append(segment.slots.numpy())
            shifts.append(_zeros(segment.length) if segment.shift is None else segment.shift.numpy())
            place += segment.length
        columns = np.array(lines, dtype=np.int64).reshape(-1, 4).T
        length, first, base, place_ = columns
        return cls(length, first, base, place_, np.concatenate(slots), np.concatenate(shifts))

    def tables(self, plan: Plan, lo: int, hi: int, most: int, programs: int) -> Tables:
        """Of the tokens from ``lo`` to ``hi``."""
        queries: Ints = plan.queries.numpy()
        deltas: Ints = plan.deltas.numpy()
        ends: Ints = np.array(plan.ends, dtype=np.int64)
        if (lo, hi) != (0, plan.tokens):
            kept = (queries >= lo) & (queries < hi)
            ends = np.concatenate((_zeros(1), np.cumsum(kept, dtype=np.int64)))[ends]
            queries, deltas = queries[kept] - lo, deltas[kept]
        begins = np.concatenate((_zeros(1), ends[:-1]))
        counts = np.where(self.length > 0, ends - begins, 0)
        width = min(most, power(int(counts.max(initial=1))))
        items = self._items(begins, counts, width, programs)
        many = items[:, 1]
        before = items[:, 2]
        of = queries[np.repeat(items[:, 0] - before, many) + np.arange(int(many.sum()))]
        columns = Columns(
            slots=plan.slots.numpy()[lo:hi],
            indices=plan.index.numpy()[lo:hi],
            queries=queries,
            deltas=deltas,
            items=items,
            gathered=self.gathered,
            shifts=self.shifts,
            ends=np.concatenate((_zeros(1), np.cumsum(np.bincount(of, minlength=hi - lo)))),
            parts=np.argsort(of, kind="stable"),
        )
        return Tables(lo, width, bool((self.base == -2).any()), columns)

    def _items(self, begins: Ints, counts: Ints, width: int, programs: int) -> Ints:
        """``[items, 8]``, segment by segment, each tile of queries with all its ranges of keys."""
        tiles = _shares(counts, width)
        keys = max(SHORTEST, _shares(int((tiles * self.length).sum()), programs))
        size = _shares(self.length, np.maximum(1, _shares(self.length, keys)))  # even ranges
        size = np.maximum(16, 16 * _shares(size, 16))
        pieces = _shares(self.length, size)
        each = tiles * pieces
        span = np.repeat(np.arange(len(each)), each)
        at = np.arange(len(span)) - np.repeat(np.cumsum(each) - each, each)
        tile, piece = at // pieces[span], at % pieces[span]
        begin = begins[span] + tile * width
        count = np.minimum(width, begins[span] + counts[span] - begin)
        lo = piece * size[span]
        hi = np.minimum(lo + size[span], self.length[span])
        part = np.cumsum(count) - count
        return np.stack((begin, count, part, self.base[span], self.place[span], lo, hi, self.first[span]), axis=1)


def _zeros(length: int) -> Ints:
    return np.zeros(length, dtype=np.int64)


def _shares(of: Any, each: Any) -> Any:
    """How many times ``each`` covers ``of``."""
    return -(-of // each)
