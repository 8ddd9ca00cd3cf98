"""What a run returns: the answer, how it ended, what each worker wrote, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvorum.engine.budget import Ledger
from kvorum.runs.trace import Trace
from kvorum.store.events import note_data


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What one worker wrote: its token ids as picked, and their text."""

    name: str
    ids: list[int]
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """How a run ended. ``outcome`` is "answered", "forced" (an answer at the budget) or "none".

    ``spent`` names the limit that ended it, if one did; ``workers`` are what each wrote, ``ledger`` what all of it
    took; ``score`` is the verifier's, if the task has one; ``seconds`` the wall time; ``differences`` where a replayed
    run did not repeat its trace.
    """

    answer: str | None
    outcome: str
    spent: str | None
    workers: list[WorkerResult]
    ledger: Ledger
    trace: Trace
    seconds: float
    score: float | None = None
    differences: list[str] = field(default_factory=list)

    @property
    def by(self) -> str | None:
        """The name of the worker that gave the answer, where the program tells it."""
        found = None
        for event in self.trace.events:
            if event["event"] == "note" and event["kind"] == "found":
                found = note_data(event).get("worker")
        return None if found is None else str(found)
