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

from kvorum.lab.detect.detect import DETECTORS
from kvorum.lab.faults.catalogue import FAULTS
from kvorum.lab.faults.record import FaultRecord, Label
from kvorum.lab.statistics.intervals import Interval, wilson


@dataclass(slots=True)
class Confusion:
    """Of one mode. ``alarms`` of ``clean`` runs without any fault were flagged."""

    hits: int = 0
    misses: int = 0
    false: int = 0
    alarms: int = 0
    clean: int = 0

    @property
    def precision(self) -> Interval | None:
        """Share of findings that are right; None without findings."""
        found = self.hits + self.false
        return wilson(self.hits, found) if found else None

    @property
    def recall(self) -> Interval | None:
        """Share of labels that were found; None without labels."""
        labels = self.hits + self.misses
        return wilson(self.hits, labels) if labels else None

    @property
    def alarm_rate(self) -> Interval | None:
        """Share of runs without a fault that were flagged; None without such runs."""
        return wilson(self.alarms, self.clean) if self.clean else None

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        either = 2 * self.hits + self.misses + self.false
        return 2 * self.hits / either if either else 0.0


def defaults() -> dict[str, float]:
    """The threshold of each mode as the detectors have it."""
    return {kind.mode: kind.threshold for kind in DETECTORS}


def usable(records: Iterable[FaultRecord]) -> list[FaultRecord]:
    """Those whose fault took effect, and those without one."""
    return [record for record in records if record["took"] or not record["fault"]]


def _labels(record: FaultRecord) -> set[Label]:
    return {(mode, worker) for mode, worker in record["labels"]} if record["fault"] else set()


def confusions(records: Iterable[FaultRecord], thresholds: Mapping[str, float] | None = None) -> dict[str, Confusion]:
    """The confusion of each mode over all usable records."""
    thresholds = defaults() | dict(thresholds or {})
    found = {mode: Confusion() for mode in thresholds}
    for record in usable(records):
        labels = _labels(record)
        also = FAULTS[record["fault"]].also if record["fault"] else ()
        flagged = {(m, w) for m, w, strength in record["strengths"] if strength >= thresholds.get(m, 1.0)}
        for mode, one in found.items():
            mine = {pair for pair in flagged if pair[0] == mode}
            right = {pair for pair in labels if pair[0] == mode}
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
    for kind in DETECTORS:
        levels = sorted({s for r in usable(records) for mode, _, s in r["strengths"] if mode == kind.mode})
        if kind.threshold == 1.0 or len(levels) < 2:
            continue
        between = [((low + high) / 2, high - low) for low, high in pairwise(levels)]
        between.append((levels[0], 0.0))
        scored = [(confusions(records, {kind.mode: at})[kind.mode].f1, gap, at) for at, gap in between]
        chosen[kind.mode] = max(scored)[2]
    return chosen


def lags(records: Iterable[FaultRecord]) -> dict[str, list[int]]:
    """Of right findings: ticks from the fault's first effect to the finding, by mode."""
    found: dict[str, list[int]] = {}
    for record in usable(records):
        labels, since = _labels(record), record["fault_tick"] or 0
        for mode, worker, tick, _ in record["findings"]:
            if (mode, worker) in labels:
                found.setdefault(mode, []).append(tick - since)
    return found


def as_markdown(groups: Mapping[str, Sequence[FaultRecord]]) -> str:
    """A table for each group of records: by mode recall, precision and false alarms, each with interval and n."""
    parts = []
    for title, records in groups.items():
        late = lags(records)
        rows = [f"### {title}", "", "| mode | recall | precision | alarms without a fault | median lag, ticks |"]
        rows.append("|---|---|---|---|---|")
        for mode, one in confusions(records).items():
            if one.recall is None and not one.false:
                continue
            ticks = sorted(late.get(mode, []))
            cells = [_told(one.recall, one.hits), _told(one.precision, one.hits), _told(one.alarm_rate, one.alarms)]
            rows.append(f"| {mode} | {' | '.join(cells)} | {ticks[len(ticks) // 2] if ticks else '–'} |")
        void = len(records) - len(usable(records))
        rows += ["", f"{len(usable(records))} runs; in {void} more the fault did not come to take effect."]
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _told(interval: Interval | None, count: int) -> str:
    if interval is None:
        return "–"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}] {count}/{interval.n}"
