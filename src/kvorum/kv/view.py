"""Views: what one worker sees, as an ordered list of spans of blocks.

A view is immutable. Every edit returns a new view and moves no tensor, so that undoing an edit is keeping the old view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from kvorum.errors import SeenTwice, SpanOutOfRange, ViewError
from kvorum.kv.ahead import Shown
from kvorum.kv.block import Block
from kvorum.kv.pool import PagePool
from kvorum.kv.span import Gap, Items, Span, moved, part, whole


class View:
    """An ordered list of spans and gaps, its ``items``; the last span's open end is where a row of this view writes.

    A block stands for all of its tokens, those still to come included: ``View(prompt, bob, own)``.
    An item begins at the farthest end of those before it, a placed span (``Span(..., at=position)``) where it says. So
    without placement a token's position in the view is the number of positions before it.

    Raises:
        SeenTwice: when two spans of one block overlap.
    """

    __slots__ = ("__dict__", "__weakref__", "items")

    def __init__(self, *items: Block | Span | Gap) -> None:
        self.items: Items = tuple(Span(item) if isinstance(item, Block) else item for item in items)
        for item in self.items:
            if not isinstance(item, Span | Gap):
                raise ViewError(f"A view holds blocks, spans and gaps, not {type(item).__name__}.")
        self._refuse_overlap()

    def _refuse_overlap(self) -> None:
        blocks = [item.block.uid for item in self.items if isinstance(item, Span)]
        if len(set(blocks)) == len(blocks):
            return
        last: dict[int, tuple[float, float]] = {}
        spans = [item for item in self.items if isinstance(item, Span) and (item.hi is None or len(item))]
        for span in sorted(spans, key=lambda span: (span.block.uid, span.lo)):
            lo, hi = span.lo, float("inf") if span.hi is None else span.hi
            if span.block.uid in last and lo < last[span.block.uid][1]:
                raise SeenTwice(
                    f"Token {lo} of {span.block.name} stands twice in one view: the spans must not overlap."
                )
            last[span.block.uid] = (lo, hi)

    def __len__(self) -> int:
        """Positions that the view takes now, gaps included: its farthest end."""
        return self.starts()[-1] if self.placed else sum(len(item) for item in self.items)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"View({', '.join(map(repr, self.items))})"

    @property
    def own(self) -> Block | None:
        """The block that a row of this view writes to, or None if the view does not end in an open end."""
        last = self.items[-1] if self.items else None
        return last.block if isinstance(last, Span) and last.hi is None else None

    @cached_property
    def placed(self) -> bool:
        """Whether any of its spans begins at a position of its own choice."""
        return any(isinstance(item, Span) and item.at is not None for item in self.items)

    def starts(self, growth: Mapping[int, int] | None = None) -> list[int]:
        """The position at which each item begins now, and last of all the farthest end.

        ``growth``: tokens by which blocks are about to grow, by their ``uid``.
        """
        end, starts = 0, []
        for item in self.items:
            start, size = end, len(item)
            if isinstance(item, Span):
                start = end if item.at is None else item.at
                size += growth.get(item.block.uid, 0) if growth and item.hi is None else 0
            starts.append(start)
            end = max(end, start + size)
        return [*starts, end]

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that stand in the view, in order, each once."""
        return tuple({item.block.uid: item.block for item in self.items if isinstance(item, Span)}.values())

    @cached_property
    def pool(self) -> PagePool | None:
        """The pool of all its blocks; None where they are of several engines, or there are none."""
        pools = {id(block.pool): block.pool for block in self.blocks}
        return next(iter(pools.values())) if len(pools) == 1 else None

    @property
    def ids(self) -> list[int]:
        """The token ids that the view shows, in order, gaps left out."""
        shown: list[int] = []
        for item in self.items:
            if isinstance(item, Span):
                shown += item.block.ids[item.lo : item.hi]
        return shown

    @property
    def shown(self) -> Shown:
        """What the view shows now before its open end, and where that begins in its own block."""
        last = self.items[-1]
        before = self.items[:-1]
        found = [(len(i),) if isinstance(i, Gap) else (i.block.uid, i.lo, i.lo + len(i), i.at) for i in before]
        return (*found, (last.block.uid, last.lo, 0, last.at) if isinstance(last, Span) else (len(last),))

    # -- edits -------------------------------------------------------------------------------------------------

    def then(self, *items: Block | Span | Gap) -> View:
        """This view with ``items`` behind it; open ends stay open."""
        return View(*self.items, *items)

    def behind(self, view: View) -> View:
        """This view with another one behind it in its own shape: placed spans are as far on as this is long now."""
        by = len(self)
        return View(*self.items, *(moved(item, by) for item in view.items))

    def split(self, start: int, end: int) -> tuple[Items, Items, Items]:
        """What stands before position ``start``, from there to ``end``, and behind; the last has the view's open end.

        The first two show what they show now of the view's own block; open ends of other blocks stay open.
        """
        start, end = whole(start), whole(end)
        *starts, length = self.starts()
        if not 0 <= start <= end <= length:
            raise SpanOutOfRange(f"Positions {start} to {end} do not lie within the {length} of the view.")
        head: list[Span | Gap] = []
        middle: list[Span | Gap] = []
        tail: list[Span | Gap] = []
        own, open_end = self.own, self.items[-1] if self.items else None
        for item, position in zip(self.items, starts, strict=True):
            size = len(item)
            lo, hi = min(max(0, start - position), size), min(max(0, end - position), size)
            if position + size <= start:
                head.append(part(item) if isinstance(item, Span) and item.block is own else item)
            elif lo:
                head.append(part(item, 0, lo))
            if lo < hi:
                middle.append(part(item, lo, hi))
            if position + size > start and (hi < size or position >= end):
                tail.append(_behind(item, hi))
                open_end = None if item is open_end else open_end
        if own is not None and open_end is not None:
            tail.append(Span(own, len(own)))
        if self.placed and (short := start - View(*head).starts()[-1]) > 0:
            head.append(Gap(short))  # positions before the cut that nothing took
        return tuple(head), tuple(middle), tuple(tail)

    def fork(self, at: int, *items: Block | Span | Gap) -> View:
        """The first ``at`` positions of this view, then ``items`` (a fresh block, usually).

        Its own block is closed where it stands now; the open ends of other blocks before ``at`` stay open.
        """
        return View(*self.split(at, at)[0], *items)

    def hide(self, *blocks: Block) -> View:
        """This view without any span of ``blocks``; what follows moves up.

        Raises:
            ViewError: one of them does not stand in the view.
        """
        for block in blocks:
            if block not in self.blocks:
                raise ViewError(f"The block {block.name} does not stand in the view, so it cannot be hidden.")
        hidden = {block.uid for block in blocks}
        return View(*(i for i in self.items if not (isinstance(i, Span) and i.block.uid in hidden)))

    def swap(self, old: Block, *new: Block | Span | Gap) -> View:
        """This view with ``new`` in the place of ``old``; what follows keeps its content, old readings included.

        Raises:
            ViewError: ``old`` does not stand in the view, or is the block that a row of the view writes to.
        """
        if old not in self.blocks or old is self.own:
            raise ViewError(f"{old.name} does not stand in the view before its open end, so it cannot be swapped.")
        items: list[Block | Span | Gap] = []
        put = False
        for item in self.items:
            if not (isinstance(item, Span) and item.block is old):
                items.append(item)
            elif not put:
                items += new
                put = True
        return View(*items)

    def splice(self, start: int, end: int) -> View:
        """This view without positions ``start`` to ``end``; what follows keeps its content and moves up.

        They are *hidden*: what was written behind them still carries what it read. ``Engine.forget`` encodes it again.
        """
        head, _, tail = self.split(start, end)
        return self if start == end else View(*head, *(moved(item, start - end) for item in tail))

    def gap(self, start: int, end: int) -> View:
        """This view with a gap in place of positions ``start`` to ``end``; nothing else moves. Hidden, too."""
        head, _, tail = self.split(start, end)
        return self if start == end else View(*head, Gap(end - start), *tail)


def _behind(item: Span | Gap, hi: int) -> Span | Gap:
    """What of an item stands behind its first ``hi`` positions; an open end stays open."""
    if isinstance(item, Gap):
        return part(item, hi)
    return replace(item, lo=item.lo + hi, at=None if item.at is None else item.at + hi)
