"""How much a key may still ask for: requests and tokens a minute, each a level that fills evenly.

A request begins while something is left of both; what it costs is taken as it is computed, so a level may fall below
zero, and then the next request waits until that has been made good.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from kvorum.serve.errors import ApiError
from kvorum.serve.keys.api_key import ApiKey

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a limit, and in how many seconds it is full again."""

    kind: str
    limit: int
    left: int
    full: float


class _Level:
    def __init__(self, kind: str, limit: int, clock: Callable[[], float]) -> None:
        self.kind, self.limit, self._clock = kind, limit, clock
        self._level, self._at = float(limit), clock()

    def now(self) -> float:
        """The level as it is now."""
        at = self._clock()
        self._level = min(float(self.limit), self._level + self.limit * (at - self._at) / _MINUTE)
        self._at = at
        return self._level

    def take(self, count: float) -> None:
        self._level = self.now() - count

    def until(self, level: float) -> float:
        """Seconds until it has risen to ``level``."""
        return max(0.0, level - self.now()) * _MINUTE / self.limit

    def left(self) -> Left:
        return Left(self.kind, self.limit, max(0, math.floor(self.now())), self.until(self.limit))


class Allowance:
    """What one key has left. To be used from any thread. ``clock`` tells seconds."""

    def __init__(self, key: ApiKey, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._lock = key.name, threading.Lock()
        given = {"requests": key.requests_per_minute, "tokens": key.tokens_per_minute}
        self._levels = {kind: _Level(kind, limit, clock) for kind, limit in given.items() if limit is not None}

    def begin(self) -> None:
        """Take a request. Raises ApiError 429 with the numbers; then nothing is taken."""
        with self._lock:
            for level in self._levels.values():
                if level.now() < 1:
                    raise _spent(self._name, level)
            if "requests" in self._levels:
                self._levels["requests"].take(1)

    def spend(self, tokens: int) -> None:
        """Take tokens that were computed."""
        with self._lock:
            if "tokens" in self._levels:
                self._levels["tokens"].take(tokens)

    def left(self) -> list[Left]:
        """What is left of each limit that there is."""
        with self._lock:
            return [level.left() for level in self._levels.values()]


def _spent(name: str, level: _Level) -> ApiError:
    seconds = max(1, math.ceil(level.until(1)))
    return ApiError(
        429,
        f"The key {name} may use {level.limit} {level.kind} a minute and has none left; ask again in {seconds} s.",
        kind=level.kind,
        code="rate_limit_exceeded",
        headers={"Retry-After": str(seconds)},
    )
