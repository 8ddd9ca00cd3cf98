"""Copies of joined runs: what many short spans hold, once more, side by side and turned already.

A view of hundreds of short closed spans reads keys that lie far apart and turns each of them, in every tick. A run that
stays is copied after some ticks, like a ``compact`` that nobody had to ask for. The arithmetic is that of the tick,
done once, so results are the same to the last bit. Copies lie in pages that the pool lends and may take back any time.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from kvorum.kv import PagePool
from kvorum.kv.derived_blocks import Carry

AFTER = 32
"""Ticks in which a run was read before it is copied: about what the copy costs, in ticks that read it scattered."""

_REMEMBER = 64

Parts = tuple[tuple[int, int, int | None], ...]
"""Of which pieces a run consists: block uid, lo, hi. Uids are never used twice, and a closed piece never changes."""


class Copies:
    """The copies in pages of one pool, made by ``carry``."""

    def __init__(self, pool: PagePool, carry: Carry) -> None:
        self._pool = pool
        self._carry = carry
        self._ticks: OrderedDict[Parts, int] = OrderedDict()
        self.made: dict[Parts, tuple[list[int], slice | Tensor]] = {}

    def find(self, parts: Parts, slots: Tensor, shift: Tensor) -> slice | Tensor | None:
        """Where the copy of a run lies, made now if it is time; None: read it where it is.

        ``slots``, ``shift``: int64 ``[length]``, as in ``plan.Segment``.
        """
        self._ticks[parts] = ticks = self._ticks.pop(parts, 0) + 1
        while len(self._ticks) > _REMEMBER:
            old, _ = self._ticks.popitem(last=False)
            if old in self.made:
                self._pool.give(self.made.pop(old)[0])
        pages, place = self.made.get(parts, ([], slots))
        if pages:
            return place
        if ticks % AFTER == 0:  # a list that was emptied has been taken back
            pages = self._pool.lend(self._pool.pages_for(len(slots)))
            if pages:
                place = self._copy(slots, shift, pages)
                self.made[parts] = pages, place
                return place
        return None

    def _copy(self, slots: Tensor, shift: Tensor, pages: list[int]) -> slice | Tensor:
        target = self._pool.slots(pages)[: len(slots)]
        self._carry(slots, shift, target)
        start = pages[0] * self._pool.page_size
        return slice(start, start + len(slots)) if pages[-1] - pages[0] == len(pages) - 1 else target
