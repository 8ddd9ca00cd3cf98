"""The items of a view: spans of blocks, and gaps.

Covers where a span lies in its block and, where it is placed, in the view. What a row of spans means is in ``view``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import index

from kvorum.errors import SpanOutOfRange, ViewError
from kvorum.kv.block import Block


def whole(place: object) -> int:
    """A number of tokens as Python's own."""
    try:
        return index(place)  # type: ignore[arg-type]
    except TypeError:
        raise ViewError(f"Places in blocks and views are whole numbers, not {place!r}.") from None


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Tokens ``lo`` to ``hi`` of a block. ``hi=None`` is the open end: the span grows with the block.

    ``at`` is the position in the view at which it begins. Without it the span stands behind all that comes before it;
    with it, at a place of its own choice: several spans may take the same positions, and some may be left empty.

    Raises:
        SpanOutOfRange: when it reaches outside the block, or begins before position 0. ViewError: of another thing than
            a block and whole numbers.
    """

    block: Block
    lo: int = 0
    hi: int | None = None
    at: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.block, Block):
            raise ViewError(f"A span is of a block, not of {type(self.block).__name__}.")
        for name in ("lo", "hi", "at"):
            place = getattr(self, name)
            if type(place) is not int and (place is not None or name == "lo"):
                object.__setattr__(self, name, whole(place))
        end = len(self.block)
        if not 0 <= self.lo <= (end if self.hi is None else self.hi) <= end:
            raise SpanOutOfRange(
                f"Span({self.block.name}, {self.lo}, {self.hi}) does not lie within the {end} tokens of its block."
            )
        if self.at is not None and self.at < 0:
            raise SpanOutOfRange(f"{self} begins before position 0 of its view.")

    def __len__(self) -> int:
        return (len(self.block) if self.hi is None else self.hi) - self.lo

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        at = "" if self.at is None else f", at={self.at}"
        return f"Span({self.block.name}, {self.lo}, {'…' if self.hi is None else self.hi}{at})"


@dataclass(frozen=True, slots=True)
class Gap:
    """``length`` positions without tokens: what stood there is gone, what follows keeps its positions."""

    length: int

    def __post_init__(self) -> None:
        if type(self.length) is not int:
            object.__setattr__(self, "length", whole(self.length))
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
    at = None if item.at is None else item.at + lo
    return Span(item.block, item.lo + lo, item.lo + (len(item) if hi is None else hi), at)


def moved(item: Span | Gap, by: int) -> Span | Gap:
    """The same item ``by`` positions further on where it is placed; any other follows what stands before it."""
    return replace(item, at=item.at + by) if isinstance(item, Span) and item.at is not None else item
