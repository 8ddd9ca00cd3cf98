"""All detectors, on a run that goes on (``Watch``) or on a trace that is there (``detect``): both find the same.

The modes are those of MAST (arXiv 2503.13657) and CAMEL (arXiv 2303.17760) for which a program can tell, those of
message passing, and those of AgentsNet (arXiv 2507.08616); what has no exact signal (derailment, missing clarification)
is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvorum.lab.detect import claims, goal, links, talk
from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import TraceState
from kvorum.store.events import Event
from kvorum.tasks.item import Item

DETECTORS: tuple[type[Detector], ...] = talk.DETECTORS + goal.DETECTORS + claims.DETECTORS + links.DETECTORS


class Watch:
    """Detectors on a run that goes on: ``feed`` is a listener of its trace.

    ``item``: the run's problem, for those that need to know what is right.
    """

    def __init__(self, item: Item | None = None, kinds: Iterable[type[Detector]] | None = None) -> None:
        self.state = TraceState()
        self.detectors = [kind(item) for kind in (DETECTORS if kinds is None else kinds)]
        self.findings: list[Finding] = []
        """The first of each mode and worker that reached its threshold."""
        self.strengths: dict[tuple[str, str], float] = {}
        """The most of each mode and worker, below the threshold too."""

    def feed(self, event: Event) -> list[Finding]:
        """What is found with this event for the first time."""
        self.state.feed(event)
        new = []
        for detector in self.detectors:
            for finding in detector.feed(event, self.state):
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
