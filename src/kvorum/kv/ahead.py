"""Tokens ahead of a block's end: their keys and values are in the cache already, the block does not have them yet.

A tick may compute tokens that are only supposed to come. They stand behind the block's end where nobody sees them, on
pages that count as free. Those that do come are taken over one by one, the others are as if they had never been.
"""

from __future__ import annotations

import weakref
from typing import TypeAlias

from torch import Tensor

from kvorum.kv.pool import PagePool

Shown: TypeAlias = "tuple[tuple[int, ...] | tuple[int, int, int, int | None], ...]"
"""What a view shows before its open end, block by block: equal where the same tokens stand at the same places."""


class Ahead:
    """What was computed ahead of one block.

    ``ids``: the tokens, of which those from ``at`` on have not come yet. ``logits``: ``[ids, vocab]``, behind each of
    them. ``length``: of the block when they were computed. ``shown``: what their row saw before its open end. ``loan``:
    pages that the pool lent for them; it is emptied where somebody else needs these.
    """

    __slots__ = ("__weakref__", "at", "ids", "length", "loan", "logits", "shown")

    def __init__(
        self, pool: PagePool, ids: list[int], logits: Tensor, length: int, shown: Shown, loan: list[int]
    ) -> None:
        self.ids, self.logits, self.length, self.shown, self.loan = ids, logits, length, shown, loan
        self.at = 0
        if loan:
            weakref.finalize(self, pool.returned.append, loan)

    @property
    def left(self) -> int:
        """How many have not come yet."""
        return len(self.ids) - self.at
