"""Who wrote what, when: a trace as a text for each worker, with the tick in which each character was written."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kvorum.harness.answers import asks_for_answer
from kvorum.harness.shadow_team import SHADOW
from kvorum.store.events import Event, TickRow


@dataclass
class WorkerText:
    """What one worker wrote of its own accord: no forced answer, no given words."""

    name: str
    text: str = ""
    starts: list[int] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)

    def add(self, tick: int, piece: str) -> None:
        """Append the piece of text that a tick added."""
        if piece:
            self.starts.append(len(self.text))
            self.ticks.append(tick)
            self.text += piece

    def when(self, at: int) -> int:
        """The tick in which the character at index ``at`` was written."""
        return self.ticks[bisect_right(self.starts, at) - 1]

    def first(self, words: str) -> int | None:
        """The tick in which ``words`` were first complete, as words or a number of their own; None if never."""
        match = find_words(self.text, words)
        return None if match is None else self.when(match.end() - 1)


def find_words(text: str, words: str, before: str = r"(?<![\w.])") -> re.Match[str] | None:
    """Where ``words`` first stand in a text as words or a number of their own, behind what the pattern ``before``
    says."""
    return re.search(rf"{before}{re.escape(words)}(?!\w|\.\d)", text, re.IGNORECASE)


def worker_rows(events: Sequence[Event]) -> Iterator[tuple[int, TickRow]]:
    """All rows of workers with their ticks, in order."""
    for event in events:
        if event["event"] == "tick":
            for row in event["rows"]:
                yield event["n"], row


def forced(events: Sequence[Event]) -> dict[str, int]:
    """The tick from which a worker was made to answer, of those that were."""
    found: dict[str, int] = {}
    for tick, row in worker_rows(events):
        if asks_for_answer(row.get("given", "")):
            found.setdefault(row["worker"], tick)
    return found


def worker_texts(events: Sequence[Event]) -> list[WorkerText]:
    """The workers of a trace, in the order of its start event; members of a shadow team are left out.

    A worker's words end where it is made to answer.
    """
    found = {name: WorkerText(name) for event in events if event["event"] == "start" for name in event["workers"]}
    ends = forced(events)
    for tick, row in worker_rows(events):
        name = row["worker"]
        if tick < ends.get(name, tick + 1) and not name.endswith(SHADOW):
            found.setdefault(name, WorkerText(name)).add(tick, row["text"])
    return list(found.values())
