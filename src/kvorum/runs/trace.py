"""The trace of a run: typed events, one JSON object a line, enough to replay the run token for token.

A trace is written as the run goes, so a killed run leaves all ticks but the one in flight. Reading a file is in
``store.traces``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from kvorum.errors import BadTrace
from kvorum.store.traces import Event, checked


class Trace:
    """Collects events, writes them to ``path`` as they come, and hands each to ``listener``."""

    def __init__(self, path: str | Path | None = None, listener: Callable[[Event], None] | None = None) -> None:
        self.events: list[Event] = []
        self.path = None if path is None else Path(path)
        self._listener = listener
        self._file: IO[str] | None = None
        self._partial: Path | None = None

    def open(self, replaying: bool) -> None:
        """Begin writing. A run that is resumed is written beside its old trace, which is replaced once caught up."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        target = self.path.with_name(self.path.name + ".resumed") if replaying else self.path
        self._partial = target if replaying else None
        self._file = target.open("w", encoding="utf-8")

    def caught_up(self) -> None:
        """The replayed part is written again: let it take the old file's place."""
        if self._partial is not None and self.path is not None:
            if self._file is not None:
                self._file.flush()
            os.replace(self._partial, self.path)
            self._partial = None

    def add(self, kind: str, /, **data: Any) -> None:
        """Record one event."""
        event: Event = {"event": kind, **data}
        self.events.append(event)
        if self._file is not None:
            self._file.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")
            self._file.flush()
        if self._listener is not None:
            self._listener(event)

    def close(self) -> None:
        """End writing. A resumed run that had not caught up leaves the old trace as it was."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
            self._partial = None


def checked_token(token: Any, vocab: int) -> int:
    """A recorded token as an id below ``vocab``. Raises BadTrace."""
    if not 0 <= int(token) < vocab:
        raise BadTrace(f"The trace has a token {token}, and the model's lie from 0 to {vocab - 1}.")
    return int(token)


def recorded(value: Any) -> Any:
    """A parameter as JSON can hold it: functions, in lists too, by their names."""
    if isinstance(value, list | tuple):
        return [recorded(part) for part in value]
    if isinstance(value, dict):
        return {str(key): recorded(part) for key, part in value.items()}
    return getattr(value, "__name__", type(value).__name__) if callable(value) else value


class Script:
    """What a trace says a run did: the tokens it picked, and the commands it was given.

    Raises:
        BadTrace: ``events`` is no list, or one of them is none, or lacks what such events have.
    """

    def __init__(self, events: Any) -> None:
        whole = checked(events)
        self.ticks = [event for event in whole if event["event"] == "tick"]
        self.commands = [event for event in whole if event["event"] == "command"]
        self.forwards = [event for event in whole if event["event"] == "forward"]
        self.outside = {event["n"]: event for event in whole if event["event"] == "outside"}
        self._taken = 0

    def __len__(self) -> int:
        return len(self.ticks)

    def tick(self, number: int, rows: list[tuple[str, int]]) -> Event:
        """The recorded tick of that number, which must have the ``rows`` (worker, ids fed). Raises BadTrace."""
        told = self.ticks[number]
        there = [(line["worker"], line["fed"]) for line in told["rows"]]
        if rows != there:
            raise BadTrace(
                f"Tick {number} of the trace has the rows {there} and the run now has {rows}: "
                "the trace was made by another version, model or program."
            )
        return told

    def take_commands(self, tick: int) -> list[Event]:
        """Those that the run took up before its tick number ``tick``, each once."""
        start = self._taken
        while self._taken < len(self.commands) and self.commands[self._taken]["tick"] <= tick:
            self._taken += 1
        return self.commands[start : self._taken]
