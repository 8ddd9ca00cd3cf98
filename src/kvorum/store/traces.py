"""Reading the trace of a run: one JSON object a line, of any version from the first on.

A killed run leaves all ticks but the one in flight. The last line may be cut; reading leaves it out. Events read from
older versions come in the newest form, and a run that repeats them goes on as one of their version: those of version 1
have no prompts, which are made anew; up to version 2 programs asked for answers in other words, and had other defaults
(``Program.former``); up to version 3 nobody noticed loops. Writing is in ``runs.trace``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, cast

from kvorum.errors import BadTrace
from kvorum.jsontypes import Json, JsonObject
from kvorum.store.events import Event
from kvorum.versions import TRACE

_Kind: TypeAlias = "type | tuple[type, ...]"
_NUMBER = (int, float)
_OBJECTS = ("task", "budget", "sampling", "model", "params", "versions")
_HOLDS: dict[str, dict[str, _Kind]] = {
    "start": {"program": str, "workers": list, "seed": int, **dict.fromkeys(_OBJECTS, dict)},
    "prompt": {"of": str},
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
_TASK: dict[str, _Kind] = {"prompt": str}
_MODEL: dict[str, _Kind] = {"name": str, "dtype": str, "weights": str, "kv_tokens": int, "page_size": int}
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
        _check(event, f"Line {number} of {path}")
        events.append(event)
    if not events:
        raise BadTrace(f"{path} is not a kvorum trace: it is empty.")
    return events


def checked(events: Sequence[Event]) -> list[Event]:
    """The events of a run, or of its beginning, that somebody has in memory.

    Raises:
        BadTrace: it is no list, is of a later version, or one of its events is none or lacks what such events have.
    """
    given = cast("Json", events)  # whatever a caller gave
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise BadTrace(f"A replay is a list of a trace's events, and this is {type(given).__name__}.")
    for at, event in enumerate(given):
        _check(event, f"Event {at} of the replay")
    version_of(events)
    return list(events)


def _check(event: Json, place: str) -> None:
    """Raise BadTrace unless ``event`` is one, and whole."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise BadTrace(f"{place} is not an event of a kvorum trace.")
    if (lack := _lack(event)) is not None:
        raise BadTrace(f"{place} ({event['event']}) lacks its {lack}; the trace is damaged.")


def _lack(event: JsonObject) -> str | None:
    """What an event does not hold, or holds as something else, that those who read it need."""
    kind = str(event["event"])
    parts: list[tuple[str, Json, dict[str, _Kind]]] = [("", event, _HOLDS.get(kind, {}))]
    if kind == "start":
        parts += [("task's ", event.get("task"), _TASK), ("model's ", event.get("model"), _MODEL)]
        parts += [("worker's ", {"name": name}, {"name": str}) for name in _items(event, "workers")]
    elif kind == "tick":
        parts += [("", row, _ROW) for row in _items(event, "rows")]
    elif kind == "prompt" and not (_all(event.get("ids"), int) or _all(event.get("around"), str, 2)):
        return "ids"
    elif kind == "end":
        parts.append(("", event.get("ledger"), _SPENT))
    for whose, part, wanted in parts:
        for name, kinds in wanted.items():
            if not isinstance(part, dict) or not isinstance(part.get(name), kinds):
                return whose + name
    return None


def _items(event: JsonObject, name: str) -> Sequence[Json]:
    items = event.get(name)
    return items if isinstance(items, list) else ()


def _all(found: Json, kind: type, count: int | None = None) -> bool:
    """Whether it is a list of that kind, of so many where ``count`` says."""
    return isinstance(found, list) and count in (None, len(found)) and all(type(one) is kind for one in found)


def version_of(events: Sequence[Event]) -> int:
    """The version of a run's events; those without a start are of the oldest."""
    if events and events[0]["event"] == "start":
        return TRACE.version(events[0].get("format"), "The replay")
    return TRACE.oldest


def until(events: Sequence[Event], tick: int) -> list[Event]:
    """The part of a run's events that a fork from its tick number ``tick`` has in common with it."""
    for at, event in enumerate(events):
        number = event["n"] if event["event"] == "tick" else event["tick"] if event["event"] == "command" else -1
        if event["event"] in ("answer", "end") or number >= tick:
            return list(events[:at])
    return list(events)
