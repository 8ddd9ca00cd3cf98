"""The same team behind the same context over caches of 32, 16 and 8 bits: reading it, a tick, and what both take.

An engine for each cache, each in a process of its own over the same weights, all in one run: their ticks take turns,
and a ratio is that of two ticks of the same round, so that a slow spell of the machine meets both.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import NamedTuple

from kvorum.bench.compare import TEAM, fitting, interleaved, spare, team_room
from kvorum.bench.engines.process import Process
from kvorum.bench.engines.server import Server
from kvorum.bench.engines.side import SideOptions, tokens
from kvorum.bench.result import OURS, About, Asked, Timing

FULL = "float32"
CACHES = (FULL, "float16", "int8")
CONTEXT = 8192
SECONDS = 3600.0
"""How long a step may take: no side may sit out."""


@dataclass(frozen=True, slots=True)
class CacheRead:
    """Seconds until the context was read into this cache, and the most that the process held then."""

    cache: str
    context: int
    seconds: Timing
    peak: int


@dataclass(frozen=True, slots=True)
class CacheTicks:
    """Ticks of ``workers`` behind ``context`` tokens, in seconds, round by round."""

    cache: str
    context: int
    workers: int
    seconds: list[float]
    peak: int


class Quartiles(NamedTuple):
    """Of a ratio, round by round."""

    low: float
    median: float
    high: float


@dataclass(slots=True)
class Caches:
    """All that a run has measured so far. ``bytes_per_token``, ``loaded``: by cache; what the process held with the
    model loaded and nothing read."""

    bytes_per_token: dict[str, int] = field(default_factory=dict)
    loaded: dict[str, int] = field(default_factory=dict)
    reads: list[CacheRead] = field(default_factory=list)
    ticks: list[CacheTicks] = field(default_factory=list)

    def times_full(self, cache: str, context: int, workers: int) -> Quartiles | None:
        """How many times as fast as over float32 a tick is, of the rounds that both had."""
        rounds = {one.cache: one.seconds for one in self.ticks if (one.context, one.workers) == (context, workers)}
        if not {FULL, cache} <= set(rounds):
            return None
        ratios = [full / mine for full, mine in zip(rounds[FULL], rounds[cache], strict=True)]
        if len(ratios) < 2:
            return Quartiles(*ratios * 3)
        return Quartiles(*statistics.quantiles(ratios, n=4, method="inclusive"))


class CachesSession:
    """Fills ``result`` and ``about`` as it goes, so that a run that is stopped has what was measured before."""

    def __init__(self, asked: Asked, progress: Callable[[str], None]) -> None:
        self.asked, self.progress = asked, progress
        self.result = Caches()
        self.about: About | None = None
        """Of the engine with the float32 cache; known as soon as it is loaded."""

    def run(self) -> None:
        """Measure all contexts and team sizes.

        Raises:
            BenchError: an engine failed.
        """
        with contextlib.ExitStack() as open_:
            sides = {}
            for cache in CACHES:
                self.progress(f"loading {self.asked.model} with a cache in {cache}")
                sides[cache] = open_.enter_context(self._start(cache))
                about = sides[cache].ask(Server.about, model=self.asked.model)
                self.about = self.about or about
                self.result.bytes_per_token[cache] = about.bytes_per_token
                self.result.loaded[cache] = sides[cache].memory.after
            assert self.about is not None
            beside = max(self.asked.workers) * spare(self.asked.repeats)
            for context in dict.fromkeys(fitting(one, self.about.longest, beside) for one in self.asked.contexts):
                self._read(sides, tokens(self.about.vocab, context))
                for workers in self.asked.workers:
                    self._tick(sides, context, workers)

    def _read(self, sides: Mapping[str, Process], ids: list[int]) -> None:
        seconds: dict[str, list[float]] = {cache: [] for cache in sides}
        for _, (cache, side) in product(range(3 if len(ids) <= 1024 else 1), sides.items()):
            self.progress(f"reading {len(ids):,} tokens into {cache}")
            seconds[cache].append(side.ask(Server.read, SECONDS, ids=ids))
        for cache, found in seconds.items():
            self.result.reads.append(CacheRead(cache, len(ids), Timing.of(found), sides[cache].ask(Server.peak)))

    def _tick(self, sides: Mapping[str, Process], context: int, workers: int) -> None:
        self.progress(f"{workers} workers behind {context:,} tokens, in turns")
        for side in sides.values():
            side.ask(Server.open, SECONDS, key=TEAM, workers=workers, spare=spare(self.asked.repeats))
        jobs = {cache: partial(side.ask, Server.tick, SECONDS, key=TEAM) for cache, side in sides.items()}
        found = interleaved(jobs, self.asked.repeats, math.inf)
        for cache, side in sides.items():
            self.result.ticks.append(CacheTicks(cache, context, workers, found[cache], side.ask(Server.peak)))
            side.ask(Server.close, key=TEAM)

    def _start(self, cache: str) -> Process:
        room = team_room(max(self.asked.contexts), max(self.asked.workers), self.asked.repeats)
        return Process(SideOptions(OURS, replace(self.asked, kv_dtype=cache), None, room))
