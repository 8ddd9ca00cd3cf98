"""What a detector of a failure is, without a judge: it is fed every event of a trace, with the state, and yields a
finding with a strength whenever it has evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from kvorum.lab.detect.state import TraceState
from kvorum.store.events import Event
from kvorum.tasks.item import Item


@dataclass(frozen=True, slots=True)
class Finding:
    """Evidence of a failure ``mode`` of ``worker`` ("" for all together), in tick ``tick``. ``strength``: how much of
    it there is, in the detector's own unit; exact signals have 1."""

    mode: str
    worker: str
    tick: int
    evidence: str
    strength: float = 1.0


class Detector:
    """One mode's. ``threshold``: the strength from which its evidence counts as found."""

    mode: ClassVar[str]
    signal: ClassVar[str]
    threshold: ClassVar[float] = 1.0

    def __init__(self, item: Item | None = None) -> None:
        self.item = item

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Evidence that the event brings; the state has taken it up already."""
        raise NotImplementedError

    def found(self, state: TraceState, worker: str, evidence: str, strength: float = 1.0) -> Finding:
        """A finding of this mode, now."""
        return Finding(self.mode, worker, state.tick, evidence[:200], strength)
