"""All detectors, on a run that goes on (``Watch``) or on a trace that is there (``detect``): both find the same.

The modes are those of MAST (arXiv 2503.13657) and CAMEL (arXiv 2303.17760) for which a program can tell, those of
message passing, and those of AgentsNet (arXiv 2507.08616); what has no exact signal (derailment, missing clarification)
is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvorum.lab.detect import claims, goal, messages, talk
from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import TraceState
from kvorum.store.events import Event
from kvorum.tasks.item import Item

DETECTORS: tuple[type[Detector], ...] = talk.DETECTORS + goal.DETECTORS + claims.DETECTORS + messages.DETECTORS
THRESHOLDS: Mapping[str, float] = {mode: least for kind in DETECTORS for mode, least in kind.modes.items()}
"""The strength from which evidence of a mode counts as found."""


class Watch:
    """All detectors on a run that goes on: ``feed`` is a listener of its trace.

    ``item``: the run's problem, for those that need to know what is right. ``findings``: the first of each mode and
    worker that reached its threshold; ``strengths``: the most of each mode and worker, below the threshold too.
    """

    def __init__(self, item: Item | None = None) -> None:
        self.state = TraceState(item)
        self.detectors = [kind(self.state) for kind in DETECTORS]
        self.findings: list[Finding] = []
        self.strengths: dict[tuple[str, str], float] = {}

    def feed(self, event: Event) -> None:
        """Take up an event, and what detectors find with it for the first time."""
        self.state.feed(event)
        for detector in self.detectors:
            for finding in detector.feed():
                key = (finding.mode, finding.worker)
                before = self.strengths.get(key, float("-inf"))
                self.strengths[key] = max(before, finding.strength)
                if before < THRESHOLDS[finding.mode] <= finding.strength:
                    self.findings.append(finding)


def detect(events: Iterable[Event], item: Item | None = None) -> list[Finding]:
    """All findings in a trace, in the order in which a watch on the run would have had them."""
    watch = Watch(item)
    for event in events:
        watch.feed(event)
    return watch.findings
