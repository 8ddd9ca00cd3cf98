"""What a run gets from outside: asked once, kept in its trace, and taken from there by whoever repeats it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from kvorum.jsontypes import Json
from kvorum.runs.recorder import Recorder
from kvorum.runs.replay import ASKING
from kvorum.runs.state import RunState

JsonValue = TypeVar("JsonValue", bound=Json)


async def ask_outside(
    state: RunState,
    recorder: Recorder,
    name: str,
    ask: Callable[[], Awaitable[JsonValue]],
    interrupted: JsonValue | None,
) -> JsonValue:
    """See ``Run.outside``."""
    number = state.asked
    state.asked += 1
    known = state.recording.outside.get(number)
    if known is not None:
        value = cast("JsonValue", known["value"])
    elif interrupted is not None and number in state.recording.begun:
        value = interrupted
    else:
        if interrupted is not None:
            recorder.note(ASKING, {"n": number, "name": name})
        value = await ask()
    state.trace.add({"event": "outside", "n": number, "name": name, "value": value})
    state.recording.told(number)
    keep_new_trace(state)
    return value


def keep_new_trace(state: RunState) -> None:
    """A resumed run's trace takes the place of the old one once it has all of that which may not be lost."""
    if state.recording.repeated(state.ticks):
        state.trace.replace_old()
