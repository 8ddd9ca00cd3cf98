"""Reading the trace of a run: one JSON object a line, of any version from the first on.

A killed run leaves all ticks but the one in flight. The last line may be cut; reading leaves it out. Events read from
older versions come in the newest form. Writing is in ``runs.trace``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from kvorum.errors import BadTrace
from kvorum.jsontypes import Json, JsonObject
from kvorum.versions import TRACE

Event: TypeAlias = dict[str, Any]
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

_Kind: TypeAlias = "type | tuple[type, ...]"
_NUMBER = (int, float)
_HOLDS: dict[str, dict[str, _Kind]] = {
    "tick": {"n": int, "seconds": _NUMBER, "rows": list},
    "forward": {"n": int, "seconds": _NUMBER},
    "view": {"worker": str, "items": list},
    "move": {"worker": str},
    "note": {"kind": str},
    "command": {"kind": str, "tick": int},
    "outside": {"n": int},
    "attention": {"n": int, "rows": list},
    "end": {"ledger": dict},
}
_ROW: dict[str, _Kind] = {"worker": str, "fed": int, "token": int, "text": str}
_SPENT: dict[str, _Kind] = dict.fromkeys(("ticks", "prefill", "decoded", "latent", "kv_read", "kv_written"), _NUMBER)


def read(path: str | Path) -> list[Event]:
    """The events of a trace file; a cut last line is left out.

    Raises:
        BadTrace: not a trace, of a later version, or damaged before its last line. FileNotFoundError: no such file.
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
        if not events:
            if not isinstance(event, dict) or event.get("event") != "start":
                raise BadTrace(f"{path} is not a kvorum trace: its first line must be the start event.")
            TRACE.version(event.get("format"), path)
        events.append(_checked(event, f"Line {number} of {path}"))
    if not events:
        raise BadTrace(f"{path} is not a kvorum trace: it is empty.")
    return events


def checked(events: Json) -> list[Event]:
    """The events of a run, or of its beginning, that somebody has in memory.

    Raises:
        BadTrace: it is no list, is of a later version, or one of its events is none or lacks what such events have.
    """
    if not isinstance(events, Sequence) or isinstance(events, str | bytes):
        raise BadTrace(f"A replay is a list of a trace's events, and this is {type(events).__name__}.")
    whole = [_checked(event, f"Event {at} of the replay") for at, event in enumerate(events)]
    if whole and whole[0]["event"] == "start":
        TRACE.version(whole[0].get("format"), "The replay")
    return whole


def _checked(event: Json, place: str) -> Event:
    """``event``, if it is one and whole. Raises BadTrace."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise BadTrace(f"{place} is not an event of a kvorum trace.")
    if (lack := _lack(event)) is not None:
        raise BadTrace(f"{place} ({event['event']}) lacks its {lack}; the trace is damaged.")
    return event


def _lack(event: Event) -> str | None:
    """What an event does not hold, or holds as something else, that those who read it need."""
    parts: list[tuple[JsonObject, dict[str, _Kind]]] = [(event, _HOLDS.get(event["event"], {}))]
    if event["event"] == "tick" and isinstance(event.get("rows"), list):
        parts += [(row if isinstance(row, dict) else {}, _ROW) for row in event["rows"]]
    if event["event"] == "end" and isinstance(event.get("ledger"), dict):
        parts.append((event["ledger"], _SPENT))
    return next((n for part, wanted in parts for n, kind in wanted.items() if not isinstance(part.get(n), kind)), None)


def until(events: Sequence[Event], tick: int) -> list[Event]:
    """The part of a run's events that a fork from its tick number ``tick`` has in common with it."""
    for at, event in enumerate(events):
        number = {"tick": event.get("n"), "command": event.get("tick")}.get(event["event"])
        if event["event"] in ("answer", "end") or (number is not None and number >= tick):
            return list(events[:at])
    return list(events)
