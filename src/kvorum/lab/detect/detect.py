"""Detectors of failures, without a judge: deterministic signals in a trace, online and after the fact alike.

A detector is fed every event and the scene, and yields a finding with a strength whenever it has evidence. ``Watch``
feeds them all while a run goes on; ``detect`` does the same with a trace that is there. The modes are those of
MAST (arXiv 2503.13657) and CAMEL (arXiv 2303.17760) for which a program can tell, those of message passing, and those
of AgentsNet (arXiv 2507.08616); what has no exact signal (derailment, missing clarification) is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kvorum.lab.detect.scene import Scene
from kvorum.runs.trace import Event
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

    def feed(self, event: Event, scene: Scene) -> Iterator[Finding]:
        """Evidence that the event brings; the scene has taken it up already."""
        raise NotImplementedError

    def found(self, scene: Scene, worker: str, evidence: str, strength: float = 1.0) -> Finding:
        """A finding of this mode, now."""
        return Finding(self.mode, worker, scene.tick, evidence[:200], strength)


class Watch:
    """Detectors on a run that goes on: ``feed`` is a listener of its trace.

    ``item``: the run's problem, for those that need to know what is right.
    """

    def __init__(self, item: Item | None = None, kinds: Iterable[type[Detector]] | None = None) -> None:
        self.scene = Scene()
        self.detectors = [kind(item) for kind in (all_detectors() if kinds is None else kinds)]
        self.findings: list[Finding] = []
        """The first of each mode and worker that reached its threshold."""
        self.strengths: dict[tuple[str, str], float] = {}
        """The most of each mode and worker, below the threshold too."""

    def feed(self, event: Event) -> list[Finding]:
        """What is found with this event for the first time."""
        self.scene.feed(event)
        new = []
        for detector in self.detectors:
            for finding in detector.feed(event, self.scene):
                key = (finding.mode, finding.worker)
                before = self.strengths.get(key, float("-inf"))
                self.strengths[key] = max(before, finding.strength)
                if before < detector.threshold <= finding.strength:
                    new.append(finding)
        self.findings += new
        return new


def detect(events: Sequence[Event], item: Item | None = None) -> list[Finding]:
    """All findings in a trace, in the order in which a watch on the run would have had them."""
    watch = Watch(item)
    for event in events:
        watch.feed(event)
    return watch.findings


def all_detectors() -> list[type[Detector]]:
    """Every kind of detector."""
    from kvorum.lab.detect import claims as detect_claims
    from kvorum.lab.detect import goal as detect_goal
    from kvorum.lab.detect import links as detect_links
    from kvorum.lab.detect import talk as detect_talk

    return [kind for module in (detect_talk, detect_goal, detect_claims, detect_links) for kind in module.DETECTORS]
