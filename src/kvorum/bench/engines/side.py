"""What every engine of a comparison does: read a context, and make a tick of W workers behind it a thing to time.

A tick is one new token for each worker. No side picks tokens: sampling and text are left out.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from kvorum.bench.result import Asked

Tick = Callable[[], object]
"""Makes one tick, which is timed by whoever calls it."""

TOKEN = 7
"""What every worker writes: the value of a token does not change what a tick costs."""


@dataclass(frozen=True, slots=True)
class SideOptions:
    """Which side is to be loaded, by its name, with what model and how.

    ``threads``: None leaves it to torch. ``kv_tokens``: room of kvorum's cache.
    """

    side: str
    asked: Asked
    threads: int | None
    kv_tokens: int


class Side(Protocol):
    """One engine with the model loaded. ``spare``: how many ticks a team may make."""

    def read(self, ids: Sequence[int]) -> float:
        """Read ``ids`` into an empty cache and keep them as the context. Returns seconds to the last token's logits."""

    def team(self, workers: int, spare: int) -> AbstractContextManager[Tick]:
        """The tick of ``workers`` behind the context; leaving frees what it took."""


def seconds(tick: Tick) -> float:
    """How long a tick, or anything else that is called so, takes."""
    started = time.perf_counter()
    tick()
    return time.perf_counter() - started


def tokens(vocab: int, count: int) -> list[int]:
    """``count`` ids, the same in every run."""
    numbers = random.Random(0)
    return [numbers.randrange(5, vocab // 2) for _ in range(count)]
