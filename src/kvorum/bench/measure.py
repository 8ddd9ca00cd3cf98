"""Timing in turns: each job once per round, so that a slow spell of the machine meets them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: median, minimum and maximum of the repeats."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        return cls(statistics.median(seconds), min(seconds), max(seconds))

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def interleaved(jobs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Time every job ``repeats`` times in turns, after one run of each that is not counted."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - started)
    return {name: Timing.of(found) for name, found in seconds.items()}
