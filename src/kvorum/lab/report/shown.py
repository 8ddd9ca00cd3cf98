"""How a report shows figures."""

from __future__ import annotations

from kvorum.lab.statistics.intervals import Interval


def ends(value: Interval) -> str:
    """The ends of an interval."""
    return f"{value.low:.2f} to {value.high:.2f}"


def chance(p: float | None) -> str:
    """A p value; nothing where there is none."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
