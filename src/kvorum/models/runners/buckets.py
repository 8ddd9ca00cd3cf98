"""Which buckets of ticks are captured: when one has come up often enough, and which goes when there are too many.

Knows nothing of what a bucket is or what is kept of it: a runner in this process keeps buffers and graphs, the driver
of several processes keeps the numbers under which they have theirs.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")

MOST_ROWS = 256
"""Ticks of more rows are bound by arithmetic, not by launches."""


class Buckets(Generic[Key, Kept]):
    """``after``: ticks of a bucket that run eagerly before it is captured: a capture takes as long as several.
    ``most``: buckets that stay captured; the least recently used goes first."""

    def __init__(self, after: int, most: int) -> None:
        self._after, self._most = after, most
        self._known: OrderedDict[Key, Kept] = OrderedDict()
        self._seen: Counter[Key] = Counter()

    @property
    def keys(self) -> tuple[Key, ...]:
        """Those captured, the least recently used first."""
        return tuple(self._known)

    def use(self, key: Key) -> Kept | None:
        """What is kept of a bucket that a tick falls into; None: it is not captured."""
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def due(self, key: Key) -> bool:
        """Count a tick of a bucket that is not captured: whether it is to be by now."""
        self._seen[key] += 1
        return self._seen[key] > self._after

    def keep(self, key: Key, kept: Kept) -> list[Kept]:
        """A bucket is captured now; what was kept of those that go for it."""
        self._known[key] = kept
        gone = []
        while len(self._known) > self._most:
            forgotten, old = self._known.popitem(last=False)
            del self._seen[forgotten]
            gone.append(old)
        return gone

    def clear(self) -> list[Kept]:
        """Forget all; what was kept of them."""
        gone = list(self._known.values())
        self._known.clear()
        self._seen.clear()
        return gone
