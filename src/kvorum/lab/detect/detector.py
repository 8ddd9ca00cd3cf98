"""What a detector of a failure is, without a judge: with every event of a trace it yields a finding with a strength
for each piece of evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """A detector of a mode of failure in one run, or of several that are seen together.

    A subclass names its modes as it is made, each with the strength from which evidence counts as found:
    ``class Echo(Detector, echo=0.8)``. ``state``: what the trace has shown so far, the event that is asked about
    included; all detectors of a run share it.
    """

    modes: ClassVar[Mapping[str, float]]
    state: TraceState

    def __init_subclass__(cls, **modes: float) -> None:
        cls.modes = modes

    def feed(self) -> Iterator[Finding]:
        """The evidence that the last event brings."""
        raise NotImplementedError

    def found(self, worker: str, evidence: str, strength: float = 1.0, mode: str = "") -> Finding:
        """A finding of this mode, by default the first one, now."""
        return Finding(mode or next(iter(self.modes)), worker, self.state.tick, evidence[:200], strength)
