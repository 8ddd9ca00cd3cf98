"""The page pool: where every key and value of every block lives.

Covers the tensors, the free list, the placement of pages, and loans of free ones to what can be missed. Knows nothing
of blocks, views, models or rotation.
Placement keeps the pages of one block adjacent where it can, so that a block is mostly one slice of each tensor.
"""

from __future__ import annotations

import gc
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from kvorum.errors import BadRequest, OutOfPages


class CacheShape(NamedTuple):
    """What one layer stores per token: ``kv_heads`` keys of ``k_dim`` and values of ``v_dim`` numbers."""

    kv_heads: int
    k_dim: int
    v_dim: int


class PagePool:
    """A fixed number of token slots, handed out in pages.

    ``keys[layer]`` is ``[kv_heads, slots, k_dim]`` and ``values[layer]`` ``[kv_heads, slots, v_dim]``; a slot holds one
    token in every layer. ``stacks`` are the same memory: ``(keys, values)`` of each run of layers of the same shape, a
    dimension of layers in front. Memory is claimed from the system only when a slot is first written.
    """

    def __init__(
        self,
        layers: Sequence[CacheShape],
        tokens: int,
        *,
        page_size: int = 16,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not (isinstance(tokens, int) and isinstance(page_size, int)) or tokens < 1 or page_size < 1:
            raise BadRequest(f"kv_tokens={tokens} and page_size={page_size} must both be whole numbers of at least 1.")
        self.page_size = page_size
        self.pages = -(-tokens // page_size)
        self.layers = tuple(layers)
        self.dtype = dtype
        self.device = torch.device(device)
        slots = self.pages * page_size
        try:
            self.stacks = [
                (
                    torch.empty(n, shape.kv_heads, slots, shape.k_dim, dtype=dtype, device=device),
                    torch.empty(n, shape.kv_heads, slots, shape.v_dim, dtype=dtype, device=device),
                )
                for shape, n in ((shape, len(list(run))) for shape, run in groupby(self.layers))
            ]
        except (RuntimeError, TypeError) as error:  # too much for the system, or for a tensor's 64 bits
            size = slots * self.bytes_per_token / 1e9
            raise BadRequest(f"kv_tokens={tokens} takes {size:.3g} GB, more than there is; give fewer.") from error
        self.keys = [layer for keys, _ in self.stacks for layer in keys]
        self.values = [layer for _, values in self.stacks for layer in values]
        # free extents as two sorted lists: pages [start, end) are free
        self._starts = [0]
        self._ends = [self.pages]
        self._free = self.pages
        self.returned: deque[list[int]] = deque()
        """Pages of blocks that are gone. A finalizer may run in the middle of anything, so it only leaves them here."""

        self._loans: list[list[int]] = []
        """Free pages lent out: a list is emptied when its pages are taken back."""

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values that one token takes over all layers."""
        return sum(s.kv_heads * (s.k_dim + s.v_dim) for s in self.layers) * self.dtype.itemsize

    @property
    def free_tokens(self) -> int:
        """Slots in free pages. A block's last page may hold a few more."""
        return self.free * self.page_size

    @property
    def free(self) -> int:
        """How many pages are free, those of blocks that are gone included."""
        while self.returned:
            self.give(self.returned.popleft())
        return self._free + self._lent

    @property
    def unused(self) -> int:
        """As ``free``, but takes nothing back, so that any thread may ask."""
        return self._free + self._lent + sum(map(len, list(self.returned)))

    @property
    def _lent(self) -> int:
        return sum(map(len, list(self._loans)))

    def lend(self, count: int) -> list[int]:
        """``count`` pages for what can be missed, or none: they count as free, and at most half of those are lent.

        The list is empty from when somebody needs its pages; ``give`` it back when it is not needed any more.
        """
        self._loans = [loan for loan in self._loans if loan]
        if 2 * (self._lent + count) > self.free:
            return []
        loan = self._claim(count, None)
        self._loans.append(loan)
        return loan

    def take(self, count: int, after: int | None = None) -> list[int]:
        """Claim ``count`` pages, next to page ``after`` where possible.

        Raises:
            OutOfPages: fewer than ``count`` are free; nothing is claimed.
        """
        if count > self.free - self._lent:
            for loan in self._loans:
                self.give(loan)
        if count > self.free:
            gc.collect()  # blocks that only a reference cycle holds
        if count > self.free:
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
            extent, start = self._place(want, after)
            run = min(want, self._ends[extent] - start)
            self._carve(extent, start, start + run)
            taken.extend(range(start, start + run))
            after = taken[-1]
        self._free -= count
        return taken

    def _place(self, want: int, after: int | None) -> tuple[int, int]:
        """The extent to take from and the page to begin at."""
        if after is not None:
            at = bisect_left(self._starts, after + 1)
            if at < len(self._starts) and self._starts[at] == after + 1:
                return at, after + 1
        sizes = [end - start for start, end in zip(self._starts, self._ends, strict=True)]
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        # Half of the room is left to the block that ends where this extent begins, so that both can grow in place.
        room = sizes[largest]
        ahead = min(room // 2, room - want) if room > want and self._starts[largest] > 0 else 0
        return largest, self._starts[largest] + ahead

    def _carve(self, extent: int, start: int, end: int) -> None:
        lo, hi = self._starts[extent], self._ends[extent]
        left, right = ([(lo, start)] if lo < start else []), ([(end, hi)] if end < hi else [])
        parts = left + right
        self._starts[extent : extent + 1] = [part[0] for part in parts]
        self._ends[extent : extent + 1] = [part[1] for part in parts]

    def give(self, pages: list[int]) -> None:
        """Return pages. The list is emptied, so that giving twice is harmless."""
        returned, pages[:] = sorted(pages), []
        self._free += len(returned)
        at = 0
        while at < len(returned):
            start = returned[at]
            while at + 1 < len(returned) and returned[at + 1] == returned[at] + 1:
                at += 1
            self._release(start, returned[at] + 1)
            at += 1

    def _release(self, start: int, end: int) -> None:
        at = bisect_right(self._starts, start)
        if at < len(self._starts) and self._starts[at] == end:
            end = self._ends[at]
            del self._starts[at], self._ends[at]
        if at > 0 and self._ends[at - 1] == start:
            self._ends[at - 1] = end
        else:
            self._starts.insert(at, start)
            self._ends.insert(at, end)

    def slots(self, pages: Sequence[int]) -> Tensor:
        """The slots of ``pages``, one page behind the other: int64 on the CPU."""
        return (
            torch.tensor(pages, dtype=torch.long)[:, None] * self.page_size + torch.arange(self.page_size)
        ).flatten()

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys ``[kv_heads, n, k_dim]`` and values ``[kv_heads, n, v_dim]`` at ``slots [n]``."""
        self.keys[layer].index_copy_(1, slots, keys.to(self.dtype))
        self.values[layer].index_copy_(1, slots, values.to(self.dtype))
