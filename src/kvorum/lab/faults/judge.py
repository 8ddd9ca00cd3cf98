"""How good the detectors are: labelled runs, the confusion of each mode, precision and recall with their intervals.

A run is labelled by what was injected and took effect: (mode, worker), the worker "" where it is of all together. A
finding of that mode and worker is right; one of another mode or worker is wrong, but for modes that may follow from
the run's fault (``Fault.also``), which count neither way. A run without a fault has no labels. Where a model writes,
what it does wrong of itself has no label either: there, precision is a lower bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_high
from typing import TypedDict

from kvorum.lab.detect.detect import THRESHOLDS
from kvorum.lab.faults.catalogue import FAULTS, Label
from kvorum.lab.report.page import Piece, Table
from kvorum.lab.statistics.intervals import Interval, wilson


class FaultRecord(TypedDict):
    """The record of one run: what was injected, and what the detectors found.

    ``took``: whether the fault came to take effect, and ``fault_tick`` in which tick it first did. ``findings``: mode,
    worker, tick and evidence of each; ``strengths``: mode, worker and the most that was seen of it, below the threshold
    too.
    """

    key: str
    by: str
    scenario: str
    fault: str
    seed: int
    number: int
    program: str
    labels: Sequence[Label]
    took: bool
    fault_tick: int | None
    findings: Sequence[tuple[str, str, int, str]]
    strengths: Sequence[tuple[str, str, float]]
    ticks: int
    outcome: str
    seconds: float


@dataclass(slots=True)
class Confusion:
    """Of one mode. ``alarms`` of ``clean`` runs without any fault were flagged. Shares of nothing are None."""

    hits: int = 0
    misses: int = 0
    false: int = 0
    alarms: int = 0
    clean: int = 0

    @property
    def precision(self) -> Interval | None:
        """Share of findings that are right."""
        return _share(self.hits, self.hits + self.false)

    @property
    def recall(self) -> Interval | None:
        """Share of labels that were found."""
        return _share(self.hits, self.hits + self.misses)

    @property
    def alarm_rate(self) -> Interval | None:
        """Share of runs without a fault that were flagged."""
        return _share(self.alarms, self.clean)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        either = 2 * self.hits + self.misses + self.false
        return 2 * self.hits / either if either else 0.0


def _share(count: int, whole: int) -> Interval | None:
    return wilson(count, whole) if whole else None


def usable(records: Iterable[FaultRecord]) -> list[FaultRecord]:
    """Those whose fault took effect, and those without one."""
    return [record for record in records if record["took"] or not record["fault"]]


def _labels(record: FaultRecord) -> set[Label]:
    return {(mode, worker) for mode, worker in record["labels"]}  # lists, where they come from a file


def confusions(records: Iterable[FaultRecord], thresholds: Mapping[str, float] | None = None) -> dict[str, Confusion]:
    """The confusion of each mode over all usable records. ``thresholds``: those that are not the detectors' own."""
    least = {**THRESHOLDS, **(thresholds or {})}
    found = {mode: Confusion() for mode in least}
    for record in usable(records):
        also = FAULTS[record["fault"]].also if record["fault"] else ()
        flagged = {(mode, worker) for mode, worker, strength in record["strengths"] if strength >= least.get(mode, 1.0)}
        for mode, one in found.items():
            mine = {pair for pair in flagged if pair[0] == mode}
            right = {pair for pair in _labels(record) if pair[0] == mode}
            one.hits += len(mine & right)
            one.misses += len(right - mine)
            one.false += 0 if mode in also else len(mine - right)
            one.clean += not record["fault"]
            one.alarms += bool(mine) and not record["fault"]
    return found


def tune(records: Sequence[FaultRecord]) -> dict[str, float]:
    """For each mode with a threshold to choose, the one with the best F1 on these records (development ones): of equal
    ones that in the middle of the widest gap between strengths."""
    chosen = {}
    for mode, threshold in THRESHOLDS.items():
        levels = sorted({s for r in usable(records) for of, _, s in r["strengths"] if of == mode})
        if threshold == 1.0 or len(levels) < 2:
            continue
        between = [((low + high) / 2, high - low) for low, high in pairwise(levels)]
        between.append((levels[0], 0.0))
        scored = [(confusions(records, {mode: at})[mode].f1, gap, at) for at, gap in between]
        chosen[mode] = max(scored)[2]
    return chosen


def lags(records: Iterable[FaultRecord]) -> dict[str, list[int]]:
    """Of right findings: ticks from the fault's first effect to the finding, by mode."""
    found: dict[str, list[int]] = {}
    for record in usable(records):
        for mode, worker, tick, _ in record["findings"]:
            if (mode, worker) in _labels(record):
                found.setdefault(mode, []).append(tick - (record["fault_tick"] or 0))
    return found


def pieces(groups: Mapping[str, Sequence[FaultRecord]]) -> list[Piece]:
    """A table for each group of records: by mode recall, precision and false alarms, each with interval and n."""
    found: list[Piece] = []
    for title, records in groups.items():
        late, runs = lags(records), usable(records)
        rows = []
        for mode, one in confusions(records).items():
            if one.recall is not None or one.false:
                shares = ((one.recall, one.hits), (one.precision, one.hits), (one.alarm_rate, one.alarms))
                lag = str(median_high(late[mode])) if mode in late else "–"
                rows.append([mode, *(_shown(share, count) for share, count in shares), lag])
        head = ["mode", "recall", "precision", "alarms without a fault", "median lag, ticks"]
        void = f"{len(runs)} runs; in {len(records) - len(runs)} more the fault did not come to take effect."
        found += [f"### {title}", Table(head, rows), void]
    return found


def _shown(share: Interval | None, count: int) -> str:
    return "–" if share is None else f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}] {count}/{share.n}"
