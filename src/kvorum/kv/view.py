"""Views: what one worker sees, as an ordered list of spans of blocks.

A view is immutable. Every edit returns a new view and moves no tensor, so that undoing an edit is keeping the old view.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from operator import index

from kvorum.errors import SeenTwice, SpanOutOfRange, ViewError
from kvorum.kv.block import Block
from kvorum.kv.pool import PagePool


def _whole(place: object) -> int:
    """A number of tokens as Python's own."""
    try:
        return index(place)  # type: ignore[arg-type]
    except TypeError:
        raise ViewError(f"Places in blocks and views are whole numbers, not {place!r}.") from None


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Tokens ``lo`` to ``hi`` of a block. ``hi=None`` is the open end: the span grows with the block.

    Raises:
        SpanOutOfRange: when it reaches outside the block. ViewError: of another thing than a block and whole numbers.
    """

    block: Block
    lo: int = 0
    hi: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.block, Block):
            raise ViewError(f"A span is of a block, not of {type(self.block).__name__}.")
        if type(self.lo) is not int or not (self.hi is None or type(self.hi) is int):
            object.__setattr__(self, "lo", _whole(self.lo))
            object.__setattr__(self, "hi", None if self.hi is None else _whole(self.hi))
        end = len(self.block)
        if not 0 <= self.lo <= (end if self.hi is None else self.hi) <= end:
            raise SpanOutOfRange(
                f"Span({self.block.name}, {self.lo}, {self.hi}) does not lie within the {end} tokens of its block."
            )

    def __len__(self) -> int:
        return (len(self.block) if self.hi is None else self.hi) - self.lo

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Span({self.block.name}, {self.lo}, {'…' if self.hi is None else self.hi})"


@dataclass(frozen=True, slots=True)
class Gap:
    """``length`` positions without tokens: what stood there is gone, what follows keeps its positions."""

    length: int

    def __post_init__(self) -> None:
        if type(self.length) is not int:
            object.__setattr__(self, "length", _whole(self.length))
        if self.length < 0:
            raise SpanOutOfRange(f"Gap({self.length}) is negative: a gap takes 0 or more positions.")

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        return True


Items = tuple[Span | Gap, ...]


def part(item: Span | Gap, lo: int = 0, hi: int | None = None) -> Span | Gap:
    """Positions ``lo`` to ``hi`` of an item as they are now (None: all that there is): the part is closed."""
    if isinstance(item, Gap):
        return Gap((len(item) if hi is None else hi) - lo)
    if lo == 0 and hi is None and item.hi is not None:
        return item
    return Span(item.block, item.lo + lo, item.lo + (len(item) if hi is None else hi))


class View:
    """An ordered list of spans and gaps, its ``items``; the last span's open end is where a row of this view writes.

    A block stands for all of its tokens, those still to come included: ``View(prompt, bob, own)``.
    A token's position in the view is the number of positions before it.

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
        """Positions that the view takes now, gaps included."""
        return sum(len(item) for item in self.items)

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

    # -- edits -------------------------------------------------------------------------------------------------

    def then(self, *items: Block | Span | Gap) -> View:
        """This view with ``items`` behind it; open ends stay open."""
        return View(*self.items, *items)

    def split(self, start: int, end: int) -> tuple[Items, Items, Items]:
        """What stands before position ``start``, from there to ``end``, and behind; the last has the view's open end.

        The first two show what they show now of the view's own block; open ends of other blocks stay open.
        """
        start, end = _whole(start), _whole(end)
        if not 0 <= start <= end <= len(self):
            raise SpanOutOfRange(f"Positions {start} to {end} do not lie within the {len(self)} of the view.")
        head: list[Span | Gap] = []
        middle: list[Span | Gap] = []
        tail: list[Span | Gap] = []
        own, position = self.own, 0
        for item in self.items:
            size = len(item)
            lo, hi = max(0, start - position), min(max(0, end - position), size)
            if position + size <= start:
                head.append(part(item) if isinstance(item, Span) and item.block is own else item)
            elif lo:
                head.append(part(item, 0, lo))
            if lo < hi:
                middle.append(part(item, lo, hi))
            if position + size > start and (hi < size or position >= end):
                tail.append(Span(item.block, item.lo + hi, item.hi) if isinstance(item, Span) else part(item, hi))
            position += size
        if own is not None and not tail:
            tail.append(Span(own, len(own)))
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

    def splice(self, start: int, end: int) -> View:
        """This view without positions ``start`` to ``end``; what follows keeps its content and moves up."""
        head, _, tail = self.split(start, end)
        return self if start == end else View(*head, *tail)

    def gap(self, start: int, end: int) -> View:
        """This view with a gap in place of positions ``start`` to ``end``; nothing else moves."""
        head, _, tail = self.split(start, end)
        return self if start == end else View(*head, Gap(end - start), *tail)
