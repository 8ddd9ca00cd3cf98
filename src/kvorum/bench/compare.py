"""One bench: the sides in turns over contexts and team sizes, and the figures that follow from them."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvorum.bench.measure import Timing, interleaved
from kvorum.bench.sides import Shared, Side, tokens


@dataclass(frozen=True, slots=True)
class Cell:
    """What one side needs for a tick of ``workers`` behind ``context`` tokens, in seconds."""

    side: str
    context: int
    workers: int
    tick: Timing

    @property
    def rate(self) -> float:
        """Tokens per second of all workers, at the median tick."""
        return self.workers / self.tick.median


@dataclass(slots=True)
class Bench:
    """All that a run has measured so far.

    ``prefill``: tokens per second by (side, context). ``spans``: seconds of a tick by the number of closed spans.
    """

    cells: list[Cell] = field(default_factory=list)
    prefill: dict[tuple[str, int], float] = field(default_factory=dict)
    spans: dict[int, Timing] = field(default_factory=dict)

    def cell(self, side: str, context: int, workers: int) -> Cell | None:
        """The cell, if it was measured."""
        found = (c for c in self.cells if (c.side, c.context, c.workers) == (side, context, workers))
        return next(found, None)

    def over(self, peer: str, context: int, workers: int) -> float | None:
        """kvorum's tokens per second over the peer's."""
        ours, theirs = self.cell("kvorum", context, workers), self.cell(peer, context, workers)
        return None if ours is None or theirs is None else ours.rate / theirs.rate

    def growth(self, side: str, context: int, workers: int) -> float | None:
        """A tick of ``workers`` over a tick of one worker."""
        one, many = self.cell(side, context, 1), self.cell(side, context, workers)
        return None if one is None or many is None else many.tick.median / one.tick.median


def compare(
    ours: Shared,
    peers: Sequence[Side],
    contexts: Sequence[int],
    workers: Sequence[int],
    *,
    repeats: int,
    heavy: int,
    bench: Bench,
    progress: Callable[[str], None],
) -> None:
    """Fill ``bench``. A peer sits out where its ``workers`` times ``context`` tokens are above ``heavy``.

    Prefill is timed three times in turns, beyond 1,024 tokens once.
    """
    for context in contexts:
        ids = tokens(ours.engine, context)
        progress(f"prefill of {context} tokens")
        seconds: dict[str, list[float]] = {}
        for _ in range(3 if context <= 1024 else 1):
            for side in (ours, *peers):
                seconds.setdefault(side.name, []).append(side.prefill(ids))
        bench.prefill |= {(name, context): context / statistics.median(found) for name, found in seconds.items()}
        for count in workers:
            progress(f"{count} workers behind {context} tokens")
            with contextlib.ExitStack() as open_:
                sides: list[Side] = [ours, *(peer for peer in peers if count * context <= heavy)]
                jobs = {side.name: open_.enter_context(side.team(ids, count)) for side in sides}
                timings = interleaved(jobs, repeats)
            bench.cells += [Cell(name, context, count, timing) for name, timing in timings.items()]


def spans(ours: Shared, context: int, counts: Sequence[int], *, repeats: int, bench: Bench) -> None:
    """Fill ``bench.spans``: four workers behind ``context`` tokens, in one block and in many closed spans."""
    ids = tokens(ours.engine, context)
    with contextlib.ExitStack() as open_:
        jobs: dict[str, Any] = {str(n): open_.enter_context(ours.spans(ids, n, 4)) for n in counts}
        bench.spans = {int(name): timing for name, timing in interleaved(jobs, repeats).items()}
