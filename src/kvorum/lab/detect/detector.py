"""What a detector of a failure is, without a judge: with every event of a trace it yields a finding with a strength
for each piece of evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from kvorum.lab.detect.state import TraceState


@dataclass(frozen=True, slots=True)
class Finding:
    """Evidence of a failure ``mode`` of ``worker`` ("" for all together), in tick ``tick``. ``strength``: how much of
    it there is, in the detector's own unit; exact signals have 1."""

    mode: str
    worker: str
    tick: int
    evidence: str
    strength: float = 1.0


@dataclass
class Detector:
    """A detector of one mode in one run. ``threshold``: the strength from which its evidence counts as found.

    ``state``: what the trace has shown so far, the event that is asked about included; all detectors of a run share it.
    """

    mode: ClassVar[str]
    threshold: ClassVar[float] = 1.0
    state: TraceState

    def feed(self) -> Iterator[Finding]:
        """The evidence that the last event brings."""
        raise NotImplementedError

    def found(self, worker: str, evidence: str, strength: float = 1.0) -> Finding:
        """A finding of this mode, now."""
        return Finding(self.mode, worker, self.state.tick, evidence[:200], strength)
