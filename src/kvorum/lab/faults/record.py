"""The record of a run of the fault study: what was injected, and what the detectors found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypedDict

Label: TypeAlias = tuple[str, str]
"""A failure of a run: its mode, and whose it is; the worker is "" where it is of all together."""


class FaultRecord(TypedDict):
    """One run. ``took``: whether the fault came to take effect, and ``fault_tick`` in which tick it first did.

    ``findings``: mode, worker, tick and evidence of each; ``strengths``: mode, worker and the most that was seen of it,
    below the threshold too.
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
