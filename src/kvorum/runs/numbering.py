"""How a trace speaks of blocks and views: by names for people, by numbers and lengths for whoever draws them.

A block's name need not be its own (a worker that begins afresh writes to a new block of the old name), so each block
also has a number: blocks are counted as the trace first speaks of them, the same in every replay.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.engine.row import Row
from kvorum.kv import Block, Gap, Span, View
from kvorum.store.events import FedRow, MovedSpan, ViewItem


class BlockNumbers:
    """The numbers of the blocks that one trace has spoken of."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def number(self, block: Block) -> int:
        """The block's number in this trace; the next free one if the trace has not spoken of it yet."""
        return self._numbers.setdefault(block.uid, len(self._numbers))

    def view(self, view: View) -> list[ViewItem]:
        """The view's items, in order."""
        return [
            ("gap", 0, len(item), None, len(item))
            if isinstance(item, Gap)
            else (item.block.name, item.lo, item.hi, self.number(item.block), len(item.block))
            for item in view.items
        ]

    def spans(self, items: Sequence[Block | Span]) -> list[MovedSpan]:
        """Each item as (block number, from token, to token)."""
        spans = [item if isinstance(item, Span) else Span(item) for item in items]
        return [(self.number(span.block), span.lo, span.lo + len(span)) for span in spans]

    def rows(self, rows: Sequence[Row]) -> list[FedRow]:
        """Of each row that writes to a block: (the block's number, how many tokens)."""
        return [(self.number(row.view.own), row.count) for row in rows if row.view.own is not None]
