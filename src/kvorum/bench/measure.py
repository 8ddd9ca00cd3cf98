"""Timing in turns: each job once per round, so that a slow spell of the machine meets them all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: median, minimum and maximum of ``repeats``."""

    median: float
    min: float
    max: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def interleaved(jobs: Mapping[str, Callable[[], float]], repeats: int, limit: float) -> dict[str, list[float]]:
    """Seconds of each job, which times itself, ``repeats`` times in turns. A job whose turns have taken ``limit``
    seconds in all sits out the later ones, after three at the least."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            if len(seconds[name]) < 3 or sum(seconds[name]) < limit:
                seconds[name].append(job())
    return seconds
