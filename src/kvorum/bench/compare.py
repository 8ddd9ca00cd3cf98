"""The grid of a bench: all sides in turns, over contexts and team sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from kvorum.bench.engines.process import Process
from kvorum.bench.engines.server import Server
from kvorum.bench.engines.side import tokens
from kvorum.bench.result import OURS, About, Asked, Bench, Prefill, TeamTick, Timing
from kvorum.errors import BenchError
from kvorum.models.catalogue import available_memory

Key = TypeVar("Key", bound=Hashable)

TEAM = "team"
"""The key of the job that is timed."""
_PAGE = 16


class Comparison:
    """Sides in their processes, kvorum's among them, and the bench that they fill with what was asked."""

    def __init__(
        self, sides: Mapping[str, Process], asked: Asked, about: About, bench: Bench, progress: Callable[[str], None]
    ) -> None:
        self.sides = dict(sides)
        self.asked, self.about, self.bench = asked, about, bench
        self.progress = progress

    def grid(self) -> None:
        """Prefills and ticks, light ones first: a side that fails sits out what is heavier."""
        contexts, workers = self.asked.contexts, self.asked.workers
        done, teams = 0, len(contexts) * len(workers)
        for context in sorted(contexts):
            self.read(context)
            for count in sorted(workers):
                done += 1
                self.progress(f"[{done}/{teams}] {count} workers behind {context:,} tokens")
                self.team(context, count)

    def read(self, context: int) -> None:
        """Every side reads the context, in turns: three times, beyond 1,024 tokens once."""
        ids = tokens(self.about.vocab, context)
        seconds: dict[str, list[float]] = {}
        peaks: dict[str, int] = {}
        for _ in range(3 if context <= 1024 else 1):
            for name in list(self.sides):
                with self.guarded(name, f"the prefill of {context:,} tokens"):
                    side = self.sides[name]
                    seconds.setdefault(name, []).append(side.ask(Server.read, self.asked.limit, ids=ids))
                    peaks[name] = max(peaks.get(name, 0), side.ask(Server.peak))
        for name, found in seconds.items():
            if name in self.sides:
                self.bench.prefill.append(Prefill(name, context, Timing.of(found), peaks[name]))
                self.progress(f"    {name}: prefill {context / Timing.of(found).median:,.0f} tokens/s")

    def team(self, context: int, workers: int) -> None:
        """One team size behind the context that was read last."""
        opened = []
        for name in list(self.sides):
            where = f"{workers} workers behind {context:,} tokens"
            if (why := self._too_heavy(name, context, workers)) is not None:
                self.bench.left_out.append(f"{name}, {where}: {why}")
                continue
            with self.guarded(name, where):
                seconds = 2 * self.asked.limit
                self.sides[name].ask(Server.open, seconds, key=TEAM, workers=workers, spare=spare(self.asked.repeats))
                opened.append(name)
        jobs = {name: partial(self._tick, name, workers) for name in opened}
        found = interleaved(jobs, self.asked.repeats, self.asked.limit)
        for name in opened:
            if name not in self.sides:
                continue
            peak = self.sides[name].ask(Server.peak)
            self.sides[name].ask(Server.close, key=TEAM)
            if not any(map(math.isnan, found[name])):
                team = TeamTick(name, context, workers, Timing.of(found[name]), peak)
                self.bench.ticks.append(team)
                self.progress(f"    {name}: {team.tick.median * 1e3:.1f} ms, {team.rate:.0f} tokens/s")

    @contextmanager
    def guarded(self, name: str, where: str) -> Iterator[None]:
        """A peer that fails is noted and, if its process is gone, sits out from here on. kvorum must not fail."""
        try:
            yield
        except BenchError as error:
            if name == OURS:
                raise BenchError(f"kvorum, {where}: {error}.") from error
            self.bench.left_out.append(f"{name}, {where}: {error}")
            self.progress(f"    {name} is left out: {error}")
            if not self.sides[name].alive:
                self.sides.pop(name).end()

    def _tick(self, name: str, workers: int) -> float:
        if name in self.sides:
            with self.guarded(name, f"a tick of {workers} workers"):
                return self.sides[name].ask(Server.tick, self.asked.limit, key=TEAM)
        return math.nan

    def _too_heavy(self, name: str, context: int, workers: int) -> str | None:
        if name in (OURS, "llama.cpp-shared"):
            return None
        if workers * context > self.asked.heavy:
            return "above --heavy"
        copies = 2 if name == "transformers" else 1  # it appends to its cache by making a new one
        if copies * workers * context * self.about.bytes_per_token > 0.8 * available_memory():
            return "too little memory is free"
        return None


def interleaved(jobs: Mapping[Key, Callable[[], float]], repeats: int, limit: float) -> dict[Key, list[float]]:
    """Seconds of each job, which times itself, ``repeats`` times in turns, so that a slow spell of the machine meets
    them all. A job whose turns have taken ``limit`` seconds in all sits out the later ones, after three at the least.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in jobs}
    for _ in range(repeats):
        for key, job in jobs.items():
            if len(seconds[key]) < 3 or sum(seconds[key]) < limit:
                seconds[key].append(job())
    return seconds


def fitting(context: int, longest: int | None, beside: int) -> int:
    """The context, or the most of it in whole pages that a model of ``longest`` tokens reads with ``beside`` more."""
    return context if longest is None else min(context, max(1, (longest - beside) // _PAGE * _PAGE))


def own_room(repeats: int) -> int:
    """Tokens of the cache that a worker's own block may take while its team is timed."""
    return 64 + 2 * repeats


def team_room(context: int, workers: int, repeats: int) -> int:
    """Tokens of the cache that the blocks of a team behind a context take at once, with pages that are not full."""
    return 2 * context + workers * own_room(repeats) + 4096


def spare(repeats: int) -> int:
    """How many tokens a worker may write while its team is timed: two a turn, and two more."""
    return 2 * repeats + 2
