"""The page pool: which slots of a cache are whose, as numbers.

Covers the free list, the placement of pages, and loans of free ones to what can be missed. Knows nothing of tensors,
blocks, views or models.
Placement keeps the pages of one block adjacent where it can, so that a block is mostly one slice of each tensor.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kvorum.errors import OutOfPages
from kvorum.kv.cache import CacheConfig


class PagePool:
    """The slots of a cache as numbers, handed out in pages. The tensors behind them are a ``KVCache``'s."""

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self.page_size = config.page_size
        self.pages = config.pages
        self.bytes_per_token = config.bytes_per_token
        self._is_free = np.ones(self.pages, dtype=bool)
        self._free = self.pages
        self.returned: deque[list[int]] = deque()
        """Pages of blocks that are gone. A finalizer may run in the middle of anything, so it only leaves them here."""

        self._loans: list[list[int]] = []
        """Free pages lent out: a list is emptied when its pages are taken back."""

    @property
    def free_tokens(self) -> int:
        """Slots in free pages. A block's last page may hold a few more."""
        return self.free * self.page_size

    def free_for(self, tokens: int) -> int:
        """``free_tokens``; where they are fewer than ``tokens``, without blocks that only a reference cycle holds."""
        if tokens > self.free_tokens:
            gc.collect()
        return self.free_tokens

    @property
    def free(self) -> int:
        """How many pages are free, those of blocks that are gone included."""
        while self.returned:
            self.give(self.returned.popleft())
        return self._free + self._lent

    def pages_for(self, tokens: int) -> int:
        """How many pages ``tokens`` tokens take; 0 where there are none."""
        return max(0, -(-tokens // self.page_size))

    @property
    def unused(self) -> int:
        """As ``free``, but takes nothing back, so that any thread may ask."""
        loans = list(self._loans)
        lent = {id(loan) for loan in loans}  # one that came back is in both, and its pages are free once
        back = sum(len(pages) for pages in list(self.returned) if id(pages) not in lent)
        return self._free + sum(map(len, loans)) + back

    @property
    def _lent(self) -> int:
        return sum(map(len, list(self._loans)))

    def lend(self, count: int, after: int | None = None) -> list[int]:
        """``count`` pages for what can be missed, or none: they count as free, and at most half of those are lent.

        ``after``: as in ``take``. The list is empty from when somebody needs its pages; ``give`` it back when it is not
        needed any more.
        """
        self._loans = [loan for loan in self._loans if loan]
        if 2 * (self._lent + count) > self.free:
            return []
        loan = self._claim(count, after)
        self._loans.append(loan)
        return loan

    def keep(self, loan: list[int]) -> int:
        """The first page of a loan, which is no loan any more."""
        return loan.pop(0)

    def take(self, count: int, after: int | None = None) -> list[int]:
        """Claim ``count`` pages, next to page ``after`` where possible.

        Raises:
            OutOfPages: fewer than ``count`` are free; nothing is claimed.
        """
        if count > self.free - self._lent:
            for loan in self._loans:
                self.give(loan)
        if count * self.page_size > self.free_for(count * self.page_size):
            raise OutOfPages(
                f"{count * self.page_size} more token slots are needed and {self.free_tokens} of "
                f"{self.pages * self.page_size} are free: drop views or blocks that are no longer used, "
                "or load the engine with a larger kv_tokens."
            )
        return self._claim(count, after)

    def _claim(self, count: int, after: int | None) -> list[int]:
        taken: list[int] = []
        while len(taken) < count:
            want = count - len(taken)
            start = self._place(want, after)
            run = self._is_free[start : start + want]
            stop = start + (len(run) if run.all() else int(np.argmin(run)))
            self._is_free[start:stop] = False
            taken.extend(range(start, stop))
            after = stop - 1
        self._free -= count
        return taken

    def _place(self, want: int, after: int | None) -> int:
        """The free page to begin at: the next one where it is free, else one in the longest run of free pages."""
        if after is not None and after + 1 < self.pages and self._is_free[after + 1]:
            return after + 1
        ends = np.flatnonzero(np.diff(self._is_free, prepend=False, append=False))
        rooms = ends[1::2] - ends[::2]
        longest = int(np.argmax(rooms))
        start, room = int(ends[2 * longest]), int(rooms[longest])
        # Half of the room is left to the block that ends where this run begins, so that both can grow in place.
        ahead = min(room // 2, room - want) if room > want and start > 0 else 0
        return start + ahead

    def give(self, pages: list[int]) -> None:
        """Return pages. The list is emptied, so that giving twice is harmless."""
        self._is_free[pages] = True
        self._free += len(pages)
        pages.clear()

    def slots(self, pages: Sequence[int]) -> Tensor:
        """The slots of ``pages``, one page behind the other: int64 on the CPU."""
        return (
            torch.tensor(pages, dtype=torch.long)[:, None] * self.page_size + torch.arange(self.page_size)
        ).flatten()
