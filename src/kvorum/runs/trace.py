"""The trace of a run: typed events, one JSON object a line, enough to replay the run token for token.

A trace is written as the run goes, so a killed run leaves all ticks but the one in flight. The last line may be cut;
reading leaves it out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from kvorum.errors import BadTrace

FORMAT = 1

Event = dict[str, Any]
"""``{"event": kind, ...}``. Blocks have numbers of the run's own. Kinds:

- ``start``: everything that determines the run.
- ``tick``: the ledger so far; per row worker, ids fed, the text of those that it did not pick itself, token picked, its
  text and log-probability.
- ``forward``, a tick that picks nothing, such as a prefill or a latent step: the ledger's seconds so far; per row the
  block and the tokens fed.
- ``attention``, behind the tick ``n`` where a tap is on: per row the worker, and of each layer the shares of its
  attention that went to the words of each of ``owners`` ("": nobody's, such as prompts).
- ``view``, a worker's view where it has changed; ``move``, tokens appended to another block, and from which spans
  (``told.py`` says how blocks and views are told).
- ``note``, what a program wants to say; ``command``, what a person or caller asked for, and before which tick;
  ``outside``, what came from outside the model, such as a tool's result.
- ``fault``, an injected fault in the moment in which it first takes effect: its mode, whose, and what is done.
- ``answer`` and ``end``: outcome, answer, ledger.
"""


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


_NUMBER = (int, float)
_HOLDS: dict[str, dict[str, Any]] = {
    "tick": {"n": int, "seconds": _NUMBER, "rows": list},
    "forward": {"n": int, "seconds": _NUMBER},
    "view": {"worker": str, "items": list},
    "move": {"worker": str},
    "note": {"kind": str},
    "command": {"kind": str, "tick": int},
    "outside": {"n": int, "value": object},
    "attention": {"n": int, "rows": list},
    "end": {"ledger": dict},
}
_ROW = {"worker": str, "fed": int, "token": int, "text": str}
_SPENT = dict.fromkeys(("ticks", "prefill", "decoded", "latent", "kv_read", "kv_written"), _NUMBER)


def read(path: str | Path) -> list[Event]:
    """The events of a trace file; a cut last line is left out.

    Raises:
        BadTrace: not a trace, or damaged before its last line. FileNotFoundError: no such file.
    """
    events: list[Event] = []
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except IsADirectoryError as error:
        raise BadTrace(f"{path} is not a trace: it is a folder.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            if number == len(lines) and events:
                break  # the process was killed while it wrote this line
            if isinstance(error, UnicodeDecodeError):
                raise BadTrace(f"{path} is not a trace: line {number} is not UTF-8 text.") from error
            raise BadTrace(f"Line {number} of {path} is not JSON; the trace is damaged.") from error
        events.append(_checked(event, f"Line {number} of {path}"))
    if not events or events[0]["event"] != "start" or events[0].get("format") != FORMAT:
        raise BadTrace(f"{path} is not a kvorum trace of format {FORMAT}: its first line must be the start event.")
    return events


def _checked(event: Any, place: str) -> Event:
    """``event``, if it is one and whole. Raises BadTrace."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise BadTrace(f"{place} is not an event of a kvorum trace.")
    if (lack := _lack(event)) is not None:
        raise BadTrace(f"{place} ({event['event']}) lacks its {lack}; the trace is damaged.")
    return event


def _lack(event: Event) -> str | None:
    """What an event does not hold, or holds as something else, that those who read it need."""
    parts = [(event, _HOLDS.get(event["event"], {}))]
    if event["event"] == "tick" and isinstance(event.get("rows"), list):
        parts += [(row if isinstance(row, dict) else {}, _ROW) for row in event["rows"]]
    if event["event"] == "end" and isinstance(event.get("ledger"), dict):
        parts.append((event["ledger"], _SPENT))
    return next((n for part, wanted in parts for n, kind in wanted.items() if not isinstance(part.get(n), kind)), None)


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
        if not isinstance(events, Sequence) or isinstance(events, str | bytes):
            raise BadTrace(f"A replay is a list of a trace's events, and this is {type(events).__name__}.")
        whole: list[Event] = [_checked(event, f"Event {at} of the replay") for at, event in enumerate(events)]
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


def until(events: Sequence[Event], tick: int) -> list[Event]:
    """The part of a run's events that a fork from its tick number ``tick`` has in common with it."""
    for at, event in enumerate(events):
        number = {"tick": event.get("n"), "command": event.get("tick")}.get(event["event"])
        if event["event"] in ("answer", "end") or (number is not None and number >= tick):
            return list(events[:at])
    return list(events)
