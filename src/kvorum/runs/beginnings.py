"""Which of many kept prompts has most of another one at its beginning: found by search, not by looking at each.

Prompts stand in the order of their tokens. Whatever begins as a prompt does stands beside the place that the prompt
itself would have, so two neighbours are looked at, and the place is found by bisection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kvorum.runs.kept_prompts import Entry

Ids = npt.NDArray[np.int64]


@dataclass
class Beginnings:
    """Entries, by all of their tokens, or by those in their first block (``first``)."""

    first: bool = False
    _sorted: list[Entry] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, entry: Entry) -> None:
        """Take an entry in, behind those of the same tokens."""
        self._sorted.insert(bisect_right(self._sorted, self._key(entry), key=self._key), entry)

    def remove(self, entry: Entry) -> None:
        """Let an entry go that was added."""
        at = bisect_left(self._sorted, self._key(entry), key=self._key)
        while self._sorted[at] is not entry:  # others of the same tokens
            at += 1
        del self._sorted[at]

    def longest(self, ids: Sequence[int]) -> tuple[Entry | None, int]:
        """The entry with most of ``ids`` at its beginning, and how many tokens that is.

        Of several, one that ends there if there is one, and of the same tokens the oldest.
        """
        wanted = np.asarray(ids, dtype=np.int64)
        place = bisect_left(self._sorted, _order(wanted), key=self._key)
        beside = self._sorted[max(place - 1, 0) : place + 1]
        length = max((_common(self._ids(entry), wanted) for entry in beside), default=0)
        if not length:
            return None, 0
        return self._sorted[bisect_left(self._sorted, _order(wanted[:length]), key=self._key)], length

    def _ids(self, entry: Entry) -> Ids:
        return entry.ids[: entry.first] if self.first else entry.ids

    def _key(self, entry: Entry) -> bytes:
        return _order(self._ids(entry))


def _order(ids: Ids) -> bytes:
    """Bytes that sort as the ids do."""
    return ids.astype(">u4").tobytes()


def _common(one: Ids, other: Ids) -> int:
    """How many tokens two prompts have in common at their beginning."""
    count = min(len(one), len(other))
    same = one[:count] == other[:count]
    return count if same.all() else int(same.argmin())
