"""The structure of a tick's views: what of its plan depends on the views alone, and so is kept from tick to tick."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kvorum.attention.joined_copies import Parts
from kvorum.kv import Block, Span, View

Ints = npt.NDArray[np.int64]

_LAYOUTS = 8
"""Layouts that a structure keeps: a team decodes with one, and is fed with a few others."""

JOIN_BELOW = 64
"""Closed spans shorter than this are joined with their neighbours. A longer one is cheaper to read as it is stored."""


@dataclass(frozen=True, eq=False, slots=True)
class Stretch:
    """A segment before its open ends are measured. Blocks are named by (row, item), so that nothing is kept alive."""

    row: int
    item: int
    lo: int
    hi: int | None
    rows: tuple[int, ...]
    slots: Tensor | None  # of a joined run
    shift: Tensor | None
    parts: Parts  # of a joined run


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """What of a plan depends on the structure and on how many tokens each row appends."""

    row_of: Ints  # [tokens]: each new token's row
    place: Ints  # [tokens]: its position in the view, less the length of the view
    queries: Ints  # [queries]: the runs' new tokens, run behind run
    start_of: Ints  # [queries]: each one's place in the structure's rows
    begins: Ints  # [runs]: where each run's queries begin
    ends: tuple[int, ...]  # and end


@dataclass(frozen=True, eq=False, slots=True)
class Structure:
    """Runs, and what open ends they stand behind."""

    views: tuple[weakref.ref[View], ...]
    runs: tuple[Stretch, ...]
    closed_total: Ints  # per row: positions of all closed items and gaps
    # of each run and each row that sees it, run by run:
    rows: Ints  # the row
    closed_before: Ints  # positions of closed items and gaps before the run
    open_before: Ints  # how many open spans stand before it
    run_of: Ints  # the run
    item: Ints  # the item of the row's view in which the run begins
    inner: Ints  # positions of that item before the run
    placed: tuple[int, ...]  # the rows whose views have placed spans: what counts for them is item and inner
    opened_blocks: tuple[tuple[int, int], ...]  # of each block with an open span, one of these as (row, item)
    opened_at: Ints  # [row, k]: which of the blocks the row's k-th open span is of; the last is no block, of length 0
    opened_lo: Ints  # [row, k]: where that span begins
    layouts: dict[tuple[int, ...], Layout]

    def opened(self, views: Sequence[View]) -> Ints:
        """[row, k]: positions in the row's first k open spans; the last column is all of them."""
        lengths = np.array([*(len(block_at(views[row], item)) for row, item in self.opened_blocks), 0])
        before = np.zeros((len(views), self.opened_at.shape[1] + 1), dtype=np.int64)
        np.cumsum(lengths[self.opened_at] - self.opened_lo, axis=1, out=before[:, 1:])
        return before

    def measured(self, views: Sequence[View]) -> tuple[Ints, Ints]:
        """Of each run and each row that sees it: where in the row's view it begins; and how long each row's view is."""
        before = self.opened(views)
        starts = self.closed_before + before[self.rows, self.open_before]
        lengths = self.closed_total + before[:, -1]
        for row in self.placed:
            *begins, lengths[row] = views[row].starts()
            mine = self.rows == row
            starts[mine] = np.array(begins, dtype=np.int64)[self.item[mine]] + self.inner[mine]
        return starts, lengths

    def layout(self, counts: tuple[int, ...]) -> Layout:
        """The layout for rows that append so many tokens; the latest ones are kept."""
        known = self.layouts.get(counts)
        if known is None:
            if len(self.layouts) >= _LAYOUTS:
                self.layouts.clear()
            known = self.layouts[counts] = self._lay_out(np.array(counts, dtype=np.int64))
        return known

    def _lay_out(self, news: Ints) -> Layout:
        offsets = np.cumsum(news) - news
        row_of = np.repeat(np.arange(len(news)), news)
        each = news[self.rows]
        behind = np.cumsum(each)
        queries = np.arange(behind[-1]) + np.repeat(offsets[self.rows] - (behind - each), each)
        ends = np.cumsum(np.bincount(self.run_of, weights=each, minlength=len(self.runs))).astype(np.int64)
        return Layout(
            row_of=row_of,
            place=np.arange(len(row_of)) - (news + offsets)[row_of],
            queries=queries,
            start_of=np.repeat(np.arange(len(each)), each),
            begins=ends - np.diff(ends, prepend=0),
            ends=tuple(ends.tolist()),
        )


def block_at(view: View, item: int) -> Block:
    """The block of a view's item, which must be a span."""
    span = view.items[item]
    assert isinstance(span, Span)
    return span.block


Key = tuple[int, int, int | None]  # block uid, lo, hi


@dataclass(eq=False, slots=True)
class _Piece:
    """A part of a block that every row sees whole or not at all."""

    item: int
    inner: int  # positions of the item before it
    closed_before: int
    open_before: int
    place: int  # in the row's sequence of pieces and gaps; consecutive where one stands right behind the other


def build(views: Sequence[View]) -> Structure:
    cuts = _cuts(views)
    found = [_pieces(view, cuts) for view in views]
    rows = [pieces for pieces, _, _ in found]
    seen_by: dict[Key, list[int]] = {}
    for row, pieces in enumerate(rows):
        for key in pieces:
            seen_by.setdefault(key, []).append(row)
    runs, heads, done = [], list[_Piece](), set[Key]()
    for row, pieces in enumerate(rows):
        keys = list(pieces)
        at = 0
        while at < len(keys):
            run = [keys[at]]
            if keys[at] not in done:
                while at + len(run) < len(keys) and _joins(run[-1], keys[at + len(run)], rows, seen_by):
                    run.append(keys[at + len(run)])
                runs.append(_stretch(run, row, views[row], rows[row], seen_by[run[0]]))
                heads += [rows[other][run[0]] for other in seen_by[run[0]]]
                done.update(run)
            at += len(run)
    opened_blocks, opened_at, opened_lo = _opened(views, [opened for _, opened, _ in found])
    return Structure(
        views=tuple(map(weakref.ref, views)),
        runs=tuple(runs),
        closed_total=np.array([closed for _, _, closed in found], dtype=np.int64),
        rows=np.array([row for run in runs for row in run.rows]),
        closed_before=np.array([head.closed_before for head in heads]),
        open_before=np.array([head.open_before for head in heads]),
        run_of=np.repeat(np.arange(len(runs)), [len(run.rows) for run in runs]),
        item=np.array([head.item for head in heads]),
        inner=np.array([head.inner for head in heads]),
        placed=tuple(row for row, view in enumerate(views) if view.placed),
        opened_blocks=opened_blocks,
        opened_at=opened_at,
        opened_lo=opened_lo,
        layouts={},
    )


def _opened(
    views: Sequence[View], open_items: Sequence[tuple[int, ...]]
) -> tuple[tuple[tuple[int, int], ...], Ints, Ints]:
    """``Structure.opened_blocks``, ``opened_at`` and ``opened_lo``. ``open_items``: per row, places in view.items."""
    most = max(map(len, open_items))
    found: dict[int, tuple[int, tuple[int, int]]] = {}  # per block: its number, and (row, item)
    at = np.full((len(views), most), -1)
    lo = np.zeros((len(views), most), dtype=np.int64)
    for row, items in enumerate(open_items):
        for k, item in enumerate(items):
            span = views[row].items[item]
            assert isinstance(span, Span)
            at[row, k], _ = found.setdefault(span.block.uid, (len(found), (row, item)))
            lo[row, k] = span.lo
    return tuple(place for _, place in found.values()), at, lo


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
    apart = False
    for at, item in enumerate(view.items):
        if not isinstance(item, Span):
            closed += len(item)
            place += 1 if len(item) else 0
            continue
        uid, end = item.block.uid, _end(item)
        if apart or item.at is not None:
            place += 1  # a placed span stands behind nothing, and nothing right behind it
        apart = item.at is not None
        inner = [cut for cut in cuts[uid] if cut > item.lo and (end is None or cut < end)]
        start, behind = item.lo, 0
        for stop in [*inner, end]:
            if stop is None or stop > start:
                # pieces of one open span stand after its earlier pieces, which are closed positions of that span
                pieces[(uid, start, stop)] = _Piece(at, start - item.lo, closed + behind, len(opened), place)
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


def _stretch(keys: list[Key], row: int, view: View, pieces: dict[Key, _Piece], seen_by: list[int]) -> Stretch:
    slots = shift = None
    if len(keys) > 1:
        parts, shifts, frame = [], [], 0
        for key in keys:
            _, lo, hi = key
            assert hi is not None
            parts.append(block_at(view, pieces[key].item).table.slot_tensor(lo, hi))
            shifts.append(torch.full((hi - lo,), frame - lo))
            frame += hi - lo
        slots, shift = torch.cat(parts), torch.cat(shifts)
    _, lo, hi = keys[0]
    return Stretch(row, pieces[keys[0]].item, lo, hi, tuple(seen_by), slots, shift, parts=tuple(keys))
