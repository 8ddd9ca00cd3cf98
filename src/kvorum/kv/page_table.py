"""The page table of one block: which slot of the cache holds the token at which index."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from kvorum.kv.pool import PagePool


class PageTable:
    """The pages of one block, in order. They return to the pool when the table, and so its block, is gone."""

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self._pages: list[int] = []
        self._extents: list[tuple[int, int]] = []  # (first index, first slot) of each run of adjacent pages
        self._slots = torch.empty(0, dtype=torch.long)
        weakref.finalize(self, pool.returned.append, self._pages)

    def __len__(self) -> int:
        """How many pages the block holds."""
        return len(self._pages)

    @property
    def capacity(self) -> int:
        """How many tokens fit into the pages."""
        return len(self._pages) * self.pool.page_size

    def needed(self, tokens: int) -> int:
        """How many more pages it takes to hold ``tokens`` tokens in all."""
        return self.pool.pages_for(tokens - self.capacity)

    def grow(self, tokens: int) -> None:
        """Take the pages that are missing to hold ``tokens`` tokens in all.

        Raises:
            OutOfPages: no room; the table is as it was.
        """
        count = self.needed(tokens)
        if not count:
            return
        self._add(self.pool.take(count, self.last))

    @property
    def last(self) -> int | None:
        """The last page, None where there is none."""
        return self._pages[-1] if self._pages else None

    def _add(self, pages: Sequence[int]) -> None:
        for page in pages:
            if not self._pages or self._pages[-1] + 1 != page:
                self._extents.append((self.capacity, page * self.pool.page_size))
            self._pages.append(page)
        self._slots = torch.empty(0, dtype=torch.long)

    def borrow(self, tokens: int) -> list[int]:
        """Pages that are missing to hold ``tokens`` tokens in all, lent by the pool; none where it lends none.

        ``give_up`` must follow before anybody else may need pages.
        """
        count = self.needed(tokens)
        loan = self.pool.lend(count, self.last) if count else []
        self._add(loan)
        return loan

    def give_up(self, count: int) -> None:
        """Take the last ``count`` pages, which were borrowed, out of the table again; the loan goes on."""
        if count:
            self._drop(len(self._pages) - count)

    def adopt(self, loan: list[int]) -> None:
        """Take the first page of a loan for good."""
        self._add([self.pool.keep(loan)])

    def _drop(self, keep: int) -> list[int]:
        rest = self._pages[keep:]
        del self._pages[keep:]
        self._extents = [extent for extent in self._extents if extent[0] < self.capacity]
        self._slots = torch.empty(0, dtype=torch.long)
        return rest

    def shrink(self, tokens: int) -> None:
        """Return the pages that hold none of the first ``tokens`` tokens."""
        keep = self.pool.pages_for(tokens)
        if keep < len(self._pages):
            self.pool.give(self._drop(keep))

    def slots(self, lo: int, hi: int) -> slice | Tensor:
        """Where tokens ``lo`` to ``hi`` lie in the cache: a slice where they are adjacent, else ``[hi - lo]`` int64."""
        for at in range(len(self._extents) - 1, -1, -1):
            index, slot = self._extents[at]
            if index <= lo:
                end = self._extents[at + 1][0] if at + 1 < len(self._extents) else self.capacity
                if hi <= end:
                    return slice(slot + lo - index, slot + hi - index)
                break
        return self.slot_tensor(lo, hi)

    def places(self, lo: int, hi: int) -> list[int]:
        """Slots of tokens ``lo`` to ``hi`` as plain numbers, for a few of them."""
        size = self.pool.page_size
        return [self._pages[at // size] * size + at % size for at in range(lo, hi)]

    def slot_tensor(self, lo: int, hi: int) -> Tensor:
        """Slots of tokens ``lo`` to ``hi`` as int64 ``[hi - lo]`` on the CPU."""
        if len(self._slots) < self.capacity:
            self._slots = self.pool.slots(self._pages)
        return self._slots[lo:hi]
