"""Blocks: append-only runs of tokens, each stored once.

Covers token ids, the pages of a block and where in the pool an index lies. The keys and values themselves are in the
pool; a key is stored rotated to its index in the block.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from kvorum.errors import SealedBlock
from kvorum.kv.pool import PagePool

LATENT = -1
"""The token id that stands for a row of embeddings (a latent step), which has no id."""

_uids = itertools.count()


class Block:
    """An append-only run of tokens with one writer. Made by ``Engine.block``.

    ``name`` is for people, ``uid`` tells blocks of one process apart, and a ``sealed`` block takes no more tokens. Its
    pages return to the pool when the last handle and the last view that hold it are gone.
    """

    def __init__(self, pool: PagePool, name: str = "") -> None:
        self.uid = next(_uids)
        self.name = name or f"block{self.uid}"
        self.pool = pool
        self.sealed = False
        self.logits: Tensor | None = None
        """Logits ``[vocab]`` after the last token, kept while the block is open. Set by the engine."""
        self._ids: list[int] = []
        self._pages: list[int] = []
        self._extents: list[tuple[int, int]] = []  # (first index, first slot) of each run of adjacent pages
        self._slots = torch.empty(0, dtype=torch.long)
        weakref.finalize(self, pool.returned.append, self._pages)

    def __len__(self) -> int:
        return len(self._ids)

    def __bool__(self) -> bool:
        return True  # an empty block is still a block

    def __repr__(self) -> str:
        return f"Block({self.name!r}, {len(self)} tokens{', sealed' if self.sealed else ''})"

    @property
    def ids(self) -> list[int]:
        """The token ids, as a new list. A latent step has the id ``LATENT`` (-1)."""
        return list(self._ids)

    @property
    def capacity(self) -> int:
        """How many tokens fit into the pages that the block holds."""
        return len(self._pages) * self.pool.page_size

    def seal(self) -> Block:
        """Close the block for good: any later write is a ``SealedBlock`` error."""
        self.sealed = True
        self.logits = None
        return self

    def pages_needed(self, tokens: int) -> int:
        """How many more pages ``tokens`` more tokens take."""
        return max(0, -(-(len(self) + tokens - self.capacity) // self.pool.page_size))

    def append(self, ids: Sequence[int]) -> None:
        """Take room for ``ids`` and record them; their keys and values are written by the tick.

        Raises:
            SealedBlock: the block was sealed.
            OutOfPages: no room; the block is as it was.
        """
        if self.sealed:
            raise SealedBlock(f"{self.name} is sealed: write to a fresh block behind it instead.")
        self.reserve(len(ids))
        self._ids.extend(ids)

    def reserve(self, tokens: int) -> None:
        """Take the pages for ``tokens`` more tokens now, so that nobody else can have them before they are written.

        Raises:
            OutOfPages: no room; the block is as it was.
        """
        count = self.pages_needed(tokens)
        if count:
            self._add_pages(self.pool.take(count, self._pages[-1] if self._pages else None))

    def _add_pages(self, pages: list[int]) -> None:
        size = self.pool.page_size
        for page in pages:
            if not self._pages or self._pages[-1] + 1 != page:
                self._extents.append((self.capacity, page * size))
            self._pages.append(page)
        self._slots = torch.empty(0, dtype=torch.long)

    def truncate(self, length: int) -> None:
        """Forget the tokens from ``length`` on: the undo of a tick that failed. Pages are kept for the next try."""
        del self._ids[length:]

    def slots(self, lo: int, hi: int) -> slice | Tensor:
        """Where tokens ``lo`` to ``hi`` lie in the pool: a slice where they are adjacent, else ``[hi - lo]`` int64."""
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
