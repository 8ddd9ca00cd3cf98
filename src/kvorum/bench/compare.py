"""The grid of a bench: all sides in turns, over contexts and team sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from kvorum.bench import memory
from kvorum.bench.measure import Timing, interleaved
from kvorum.bench.result import Bench, Prefill, TeamTick
from kvorum.bench.sides.messages import Closed, Opened, Read, Ticked
from kvorum.bench.sides.process import Process
from kvorum.bench.sides.registry import OURS
from kvorum.bench.sides.side import tokens
from kvorum.errors import BenchError

Progress = Callable[[str], None]

TEAM = "team"
"""The key of the job that is timed."""


class Comparison:
    """Sides in their processes, and the bench that they fill.

    Args:
        sides: kvorum's process among them. vocab: ids are below it. bytes_per_token: of kvorum's cache, by which the
            memory of peers is foreseen. repeats: timed ticks of each team. limit: seconds; a side whose timed ticks
            take longer for a team gets three, and one that takes longer for a single step sits out from there on.
        heavy: a peer that copies the context for each worker sits out where workers times context is above it.
    """

    def __init__(
        self,
        sides: Mapping[str, Process],
        bench: Bench,
        *,
        vocab: int,
        bytes_per_token: int,
        repeats: int,
        limit: float,
        heavy: int,
        progress: Progress,
    ) -> None:
        self.sides = dict(sides)
        self.bench = bench
        self.vocab, self.bytes_per_token = vocab, bytes_per_token
        self.repeats, self.limit, self.heavy = repeats, limit, heavy
        self.progress = progress

    def grid(self, contexts: Sequence[int], workers: Sequence[int]) -> None:
        """Prefills and ticks, light ones first: a side that fails sits out what is heavier."""
        done, teams = 0, len(contexts) * len(workers)
        for context in sorted(contexts):
            self.read(context)
            for count in sorted(workers):
                done += 1
                self.progress(f"[{done}/{teams}] {count} workers behind {context:,} tokens")
                self.team(context, count)

    def read(self, context: int) -> None:
        """Every side reads the context, in turns: three times, beyond 1,024 tokens once."""
        ids = tokens(self.vocab, context)
        seconds: dict[str, list[float]] = {}
        peaks: dict[str, int] = {}
        for _ in range(3 if context <= 1024 else 1):
            for name in list(self.sides):
                with self.guarded(name, f"the prefill of {context:,} tokens"):
                    read = self.sides[name].ask(Read, "read", self.limit, ids=ids)
                    seconds.setdefault(name, []).append(read.seconds)
                    peaks[name] = max(peaks.get(name, 0), read.peak)
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
                side, spare = self.sides[name], 2 * self.repeats + 2
                side.ask(Opened, "open", 2 * self.limit, key=TEAM, kind="team", workers=workers, spare=spare)
                opened.append(name)
        seconds = interleaved({name: partial(self._tick, name, workers) for name in opened}, self.repeats, self.limit)
        for name in opened:
            if name not in self.sides:
                continue
            peak = self.sides[name].ask(Closed, "close", key=TEAM).peak
            if not any(map(math.isnan, seconds[name])):
                found = TeamTick(name, context, workers, Timing.of(seconds[name]), peak)
                self.bench.ticks.append(found)
                self.progress(f"    {name}: {found.tick.median * 1e3:.1f} ms, {found.rate:.0f} tokens/s")

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
                return self.sides[name].ask(Ticked, "tick", self.limit, key=TEAM).seconds
        return math.nan

    def _too_heavy(self, name: str, context: int, workers: int) -> str | None:
        if name in (OURS, "llama.cpp-shared"):
            return None
        if workers * context > self.heavy:
            return "above --heavy"
        copies = 2 if name == "transformers" else 1  # it appends to its cache by making a new one
        if copies * workers * context * self.bytes_per_token > 0.8 * memory.available():
            return "too little memory is free"
        return None
