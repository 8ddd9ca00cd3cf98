"""What a run returns: the answer, how it ended, what each worker wrote, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvorum.engine.budget import Ledger
from kvorum.runs.trace import Trace


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
