"""The plan of a tick: which new tokens meet which stored keys, and at which distance.

The views of a tick's rows are cut into *segments*: runs of stored tokens that the same rows see in the same
arrangement. Each stored token is in exactly one segment, so its key and value are read once per tick, however many
rows see it. A segment's keys stand in a *frame* of consecutive positions; a query that is rotated by ``delta`` sees the
key at frame position ``f`` at distance ``delta - f``.

One span alone keeps the keys as stored (frame position = index in the block). Neighbouring short closed spans are
joined to one segment whose keys are turned by ``shift`` as they are read; if they stay, they are copied side by side
(``copies``), so that a view of many short spans costs no more than a view of few long ones.

What depends on the views alone (the structure) is kept from tick to tick; only open ends are measured anew.
Covers geometry only; knows nothing of tensors of keys, heads or models.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kvorum.attention.copies import Copies, Parts
from kvorum.kv import Block, Span, View

Ints = npt.NDArray[np.int64]

JOIN_BELOW = 64
"""Closed spans shorter than this are joined with their neighbours. A longer one is cheaper to read as it is stored."""


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """Stored tokens that the same rows see in the same arrangement.

    ``slots``: where the keys are in the pool, a slice or int64 ``[length]``. ``first``: frame position of key 0.
    ``shift``: int64 ``[length]``, how far to rotate each stored key to bring it to its frame position, or None.
    ``tokens``: int64 ``[queries]``, which new tokens of the tick see the segment, or None for all.
    ``delta``: int64 ``[queries]``, by how much to rotate each query; the distance to frame position f is delta - f.
    ``masked``: some of the keys lie ahead of some of the queries and must be hidden from them. ``length`` may be 0.
    ``rows``: which rows of the tick see it.
    """

    slots: slice | Tensor
    first: int
    length: int
    shift: Tensor | None
    tokens: Tensor | None
    delta: Tensor
    masked: bool
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
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
        return len(self.index)

    @property
    def read(self) -> int:
        """Stored tokens whose keys and values the tick reads, each counted once."""
        return sum(segment.length for segment in self.segments)


@dataclass(frozen=True, eq=False, slots=True)
class _Run:
    """A segment before its open ends are measured. Blocks are named by (row, item), so that nothing is kept alive."""

    row: int
    item: int
    lo: int
    hi: int | None
    rows: tuple[int, ...]
    closed_before: list[int]  # per row: positions of closed items and gaps before it
    open_before: list[int]  # per row: how many open spans stand before it
    slots: Tensor | None  # of a joined run
    shift: Tensor | None
    parts: Parts  # of a joined run


@dataclass(frozen=True, eq=False, slots=True)
class _Structure:
    views: tuple[weakref.ref[View], ...]
    runs: tuple[_Run, ...]
    open_items: tuple[tuple[int, ...], ...]  # per row: the open spans, as places in view.items
    closed_total: Ints  # per row: positions of all closed items and gaps
    # the runs' rows, closed_before and open_before one behind the other, and which run each belongs to
    rows: Ints
    closed_before: Ints
    open_before: Ints
    run_of: Ints


class Planner:
    """Makes plans and remembers the structure of the latest sets of views. ``copies`` holds those of joined runs."""

    def __init__(self, remember: int = 16, copies: Copies | None = None) -> None:
        self._remember = remember
        self._copies = copies
        self._known: OrderedDict[tuple[int, ...], _Structure] = OrderedDict()

    def plan(self, views: Sequence[View], counts: Sequence[int], *, copied: bool = True) -> Plan:
        """The plan of a tick whose row i appends ``counts[i]`` tokens to the last block of ``views[i]``.

        The blocks must have been extended by these tokens already. ``copied``: joined runs may be read from copies; a
        tap tells keys by their slots and needs them where they were written.
        """
        structure = self._structure(views)
        news = np.asarray(counts, dtype=np.int64)
        before = _opened(views, structure)
        totals = structure.closed_total + before[:, -1]
        offsets = np.cumsum(news) - news
        row_of = np.repeat(np.arange(len(views)), news)
        position = (totals - news - offsets)[row_of] + np.arange(len(row_of))

        copies = self._copies if copied else None
        places = [_place(run, views, copies) for run in structure.runs]
        first = np.array([place[1] for place in places])
        starts = structure.closed_before + before[structure.rows, structure.open_before] - first[structure.run_of]
        each = news[structure.rows]
        behind = np.cumsum(each)
        queries = np.arange(behind[-1]) + np.repeat(offsets[structure.rows] - (behind - each), each)
        deltas = position[queries] - np.repeat(starts, each)
        ends = np.cumsum(np.bincount(structure.run_of, weights=each, minlength=len(places))).astype(np.int64)
        lowest = np.minimum.reduceat(deltas, ends - np.diff(ends, prepend=0))

        all_queries, all_deltas = torch.from_numpy(queries), torch.from_numpy(deltas)
        segments, kept, start = [], [], 0
        for run, (slots, head, length, shift), end, low in zip(
            structure.runs, places, ends.tolist(), lowest.tolist(), strict=True
        ):
            tokens = None if len(run.rows) == len(views) else all_queries[start:end]
            masked = low < head + length - 1
            segments.append(Segment(slots, head, length, shift, tokens, all_deltas[start:end], masked, run.rows))
            kept.append(end)
            start = end
        slots, index = _new_places(views, counts)
        return Plan(slots, index, tuple(counts), tuple(segments), all_queries, all_deltas, tuple(kept))

    # -- structure ---------------------------------------------------------------------------------------------

    def _structure(self, views: Sequence[View]) -> _Structure:
        key = tuple(map(id, views))
        known = self._known.get(key)
        if known is not None and all(ref() is view for ref, view in zip(known.views, views, strict=True)):
            self._known.move_to_end(key)
            return known
        structure = _build(views)
        self._known[key] = structure
        while len(self._known) > self._remember:
            self._known.popitem(last=False)
        return structure


def _block(view: View, item: int) -> Block:
    span = view.items[item]
    assert isinstance(span, Span)
    return span.block


def _opened(views: Sequence[View], structure: _Structure) -> Ints:
    """[row, k]: positions in the row's first k open spans; the last column is all of them."""
    lines = []
    most = max(map(len, structure.open_items))
    for view, items in zip(views, structure.open_items, strict=True):
        line, total = [0], 0
        for item in items:
            total += len(view.items[item])
            line.append(total)
        lines.append(line + [total] * (most - len(items)))
    return np.array(lines, dtype=np.int64)


def _place(run: _Run, views: Sequence[View], copies: Copies | None) -> tuple[slice | Tensor, int, int, Tensor | None]:
    """Slots, first frame position, length and shift of a run as it is now."""
    if run.slots is not None and run.shift is not None:
        copy = None if copies is None else copies.find(run.parts, run.slots, run.shift)
        return (run.slots, 0, len(run.slots), run.shift) if copy is None else (copy, 0, len(run.slots), None)
    block = _block(views[run.row], run.item)
    hi = len(block) if run.hi is None else run.hi
    return block.slots(run.lo, hi), run.lo, hi - run.lo, None


def _new_places(views: Sequence[View], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    slots: list[int] = []
    index: list[int] = []
    for view, count in zip(views, counts, strict=True):
        block = _block(view, -1)
        length = len(block)
        slots += block.places(length - count, length)
        index += range(length - count, length)
    return torch.tensor(slots), torch.tensor(index)


Key = tuple[int, int, int | None]  # block uid, lo, hi


@dataclass(eq=False, slots=True)
class _Piece:
    """A part of a block that every row sees whole or not at all."""

    item: int
    lo: int
    hi: int | None
    closed_before: int
    open_before: int
    place: int  # in the row's sequence of pieces and gaps


def _build(views: Sequence[View]) -> _Structure:
    cuts = _cuts(views)
    rows: list[dict[Key, _Piece]] = []
    open_items, closed_total = [], []
    for view in views:
        pieces, opened, closed = _pieces(view, cuts)
        rows.append(pieces)
        open_items.append(opened)
        closed_total.append(closed)
    seen_by: dict[Key, list[int]] = {}
    for row, pieces in enumerate(rows):
        for key in pieces:
            seen_by.setdefault(key, []).append(row)
    runs, done = [], set[Key]()
    for row, pieces in enumerate(rows):
        keys = list(pieces)
        at = 0
        while at < len(keys):
            run = [keys[at]]
            if keys[at] not in done:
                while at + len(run) < len(keys) and _joins(run[-1], keys[at + len(run)], rows, seen_by):
                    run.append(keys[at + len(run)])
                runs.append(_run(run, row, views[row], rows, seen_by[run[0]]))
                done.update(run)
            at += len(run)
    return _Structure(
        tuple(map(weakref.ref, views)),
        tuple(runs),
        tuple(open_items),
        np.array(closed_total, dtype=np.int64),
        np.array([row for run in runs for row in run.rows]),
        np.array([n for run in runs for n in run.closed_before]),
        np.array([n for run in runs for n in run.open_before]),
        np.repeat(np.arange(len(runs)), [len(run.rows) for run in runs]),
    )


def _cuts(views: Sequence[View]) -> dict[int, list[int]]:
    """Per block: the indices at which some row's span of it begins or ends."""
    cuts: dict[int, set[int]] = {}
    for view in views:
        for item in view.items:
            if isinstance(item, Span):
                ends = cuts.setdefault(item.block.uid, set())
                ends.add(item.lo)
                if (end := _end(item)) is not None:
                    ends.add(end)
    return {uid: sorted(ends) for uid, ends in cuts.items()}


def _end(span: Span) -> int | None:
    """Where a span ends for good; None: it grows with its block."""
    return len(span.block) if span.hi is None and span.block.sealed else span.hi


def _pieces(view: View, cuts: dict[int, list[int]]) -> tuple[dict[Key, _Piece], tuple[int, ...], int]:
    """One row's pieces in order, its open items, and the positions of its closed items."""
    pieces: dict[Key, _Piece] = {}
    opened: list[int] = []
    closed = place = 0
    for at, item in enumerate(view.items):
        if not isinstance(item, Span):
            closed += len(item)
            place += 1 if len(item) else 0
            continue
        uid, end = item.block.uid, _end(item)
        inner = [cut for cut in cuts[uid] if cut > item.lo and (end is None or cut < end)]
        start, behind = item.lo, 0
        for stop in [*inner, end]:
            if stop is None or stop > start:
                # pieces of one open span stand after its earlier pieces, which are closed positions of that span
                pieces[(uid, start, stop)] = _Piece(at, start, stop, closed + behind, len(opened), place)
                place += 1
                behind += 0 if stop is None else stop - start
                start = start if stop is None else stop
        if end is None:
            opened.append(at)
        else:
            closed += len(item)
    return pieces, tuple(opened), closed


def _joins(left: Key, right: Key, rows: list[dict[Key, _Piece]], seen_by: dict[Key, list[int]]) -> bool:
    """Whether two closed short pieces stand side by side in every row that sees either."""
    for _, lo, hi in (left, right):
        if hi is None or hi - lo >= JOIN_BELOW:
            return False
    if seen_by[left] != seen_by[right]:
        return False
    return all(rows[row][right].place == rows[row][left].place + 1 for row in seen_by[left])


def _run(keys: list[Key], row: int, view: View, rows: list[dict[Key, _Piece]], seen_by: list[int]) -> _Run:
    head = rows[row][keys[0]]
    slots = shift = None
    if len(keys) > 1:
        parts, shifts, frame = [], [], 0
        for key in keys:
            piece = rows[row][key]
            assert piece.hi is not None
            length = piece.hi - piece.lo
            parts.append(_block(view, piece.item).slot_tensor(piece.lo, piece.hi))
            shifts.append(torch.full((length,), frame - piece.lo))
            frame += length
        slots, shift = torch.cat(parts), torch.cat(shifts)
    return _Run(
        row,
        head.item,
        head.lo,
        head.hi,
        tuple(seen_by),
        [rows[r][keys[0]].closed_before for r in seen_by],
        [rows[r][keys[0]].open_before for r in seen_by],
        slots,
        shift,
        tuple(keys),
    )
