"""Replaying: what a trace says that a run did, handed out again tick by tick."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeGuard

from torch import Tensor

from kvorum.errors import BadTrace
from kvorum.runs.steering import Command
from kvorum.sampling.reference import logprob
from kvorum.sampling.sampling import Pick
from kvorum.store.events import Event, NoteEvent, TickEvent, TickRow, note_data
from kvorum.store.traces import checked, version_of
from kvorum.versions import TRACE

ASKING = "asking"
"""The kind of note that says that something outside is asked now which may not be asked twice; its ``n`` is the number
that the value will have."""


class Recording:
    """The ticks, prompts, commands and outside values of a trace, of which a run takes what is due.

    ``()`` holds nothing. ``version`` is the form in which the run goes on; ``time`` the moment that its chat template
    prints, None in version 1, which holds no prompts either.

    Raises:
        BadTrace: ``events`` is no list, or one of them is none, or lacks what such events have.
    """

    def __init__(self, events: Sequence[Event] = ()) -> None:
        whole = checked(events)
        self.version = version_of(whole) if whole else TRACE.newest
        self.time = datetime.now().replace(microsecond=0) if self.version > 1 else None
        if whole and whole[0]["event"] == "start" and "time" in whole[0]:
            self.time = _moment(whole[0]["time"])
        self.prompts = {event["of"]: event for event in whole if event["event"] == "prompt"}
        self.ticks = [event for event in whole if event["event"] == "tick"]
        self.forwards = [event for event in whole if event["event"] == "forward"]
        self.outside = {event["n"]: event for event in whole if event["event"] == "outside"}
        self.begun = {
            event["n"] for event in map(note_data, filter(_is_asking, whole)) if isinstance(event.get("n"), int)
        }
        """The numbers of calls to the outside that were begun; those without a value were interrupted."""
        self._told = {*self.outside, *self.begun}
        self._commands = [event for event in whole if event["event"] == "command"]
        self._taken = 0

    def __len__(self) -> int:
        """How many ticks it has."""
        return len(self.ticks)

    def repeated(self, ticks: int) -> bool:
        """Whether a run that has done so many ticks has repeated all that it may not lose."""
        return ticks >= len(self.ticks) and not self._told

    def told(self, number: int) -> None:
        """The run has the value of the outside of that number in its own trace."""
        self._told.discard(number)

    def tick(self, number: int, rows: Sequence[tuple[str, int]]) -> TickEvent | None:
        """The tick of that number, which must have the ``rows`` (worker, ids fed); None behind the last one.

        Raises:
            BadTrace: it has other rows.
        """
        if number >= len(self.ticks):
            return None
        found = self.ticks[number]
        there = [(line["worker"], line["fed"]) for line in found["rows"]]
        if rows != there:
            raise BadTrace(
                f"Tick {number} of the trace has the rows {there} and the run now has {rows}: "
                "the trace was made by another version, model or program."
            )
        return found

    def take_commands(self, tick: int) -> list[Command]:
        """Those that the run took up before its tick number ``tick``, each once."""
        start = self._taken
        while self._taken < len(self._commands) and self._commands[self._taken]["tick"] <= tick:
            self._taken += 1
        due = self._commands[start : self._taken]
        return [Command(event["kind"], event.get("worker", ""), event.get("text", "")) for event in due]


def _is_asking(event: Event) -> TypeGuard[NoteEvent]:
    return event["event"] == "note" and event["kind"] == ASKING


def _moment(said: str) -> datetime:
    try:
        return datetime.fromisoformat(said)
    except (TypeError, ValueError):
        raise BadTrace(f"The trace began at {said!r}, which is no time; it is damaged.") from None


def as_recorded(pick: Pick, row: TickRow, logits: Tensor) -> tuple[Pick, str]:
    """The pick that a trace has in ``row``, and how it differs from the one of now ("": it does not).

    Raises:
        BadTrace: the trace's token is none of ``logits [vocab]``.
    """
    token = row["token"]
    if token == pick.id:
        return pick, ""
    if not 0 <= token < len(logits):
        raise BadTrace(f"The trace has a token {token}, and the model's lie from 0 to {len(logits) - 1}.")
    return Pick(token, logprob(logits, token)), f"the trace has {token} ({row['text']!r}), now {pick.id}"
