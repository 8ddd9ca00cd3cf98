"""Calls of tools, with limits, so that none can crash, flood or hold up a run."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass

from kvorum.harness.tools.schema_check import misfit
from kvorum.harness.tools.tool import Function, Tool
from kvorum.jsontypes import Json
from kvorum.runs.run import Run

MAX_STUCK = 8
"""So many calls may be left behind unfinished by one process before further ones are refused."""
_stuck: set[threading.Thread] = set()


INTERRUPTED = "error: interrupted; whether it was carried out is not known, and it is not repeated"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: ``status`` "ok", "cut" (the result was too long), "error", "timeout", "refused" (by a person
    or a limit) or "interrupted" (the process died meanwhile). A tool may return one of its own."""

    status: str
    text: str


async def call(tools: Sequence[Tool], name: str, parameters: str, *, seconds: float, chars: int) -> Outcome:
    """Call the tool of that name with a JSON object of parameters. Never raises for what a tool or a model does.

    Whether they fit its schema is known after ``seconds`` too, or it is not called (``schema_check``).
    It runs in a thread of its own, an ``async`` one in an event loop there, so that not even one that blocks its loop
    or refuses to be cancelled holds up the run. What does not return in ``seconds`` is left behind, for Python cannot
    end a thread: its thread goes on, and does not keep the process alive.
    """
    chosen = named(tools, name)
    if chosen is None:
        return Outcome("error", f"error: there is no tool {name!r}; there are: {', '.join(one.name for one in tools)}")
    if chosen.function is None:
        return Outcome("refused", f"error: tool {name!r} is not called here")
    try:
        given = json.loads(parameters)
        if not isinstance(given, dict):
            raise TypeError("the parameters are not an object")
        if wrong := await asyncio.to_thread(misfit, chosen.parameters, given, seconds):
            return _cut("error", f"error: {wrong}", chars)
        inspect.signature(chosen.function).bind(**given)
    except TimeoutError:
        return Outcome("timeout", f"error: it was not known within {seconds:g} seconds whether this fits the schema")
    except (ValueError, TypeError, RecursionError) as error:
        return _cut("error", f"error: {error}", chars)
    _stuck.difference_update([thread for thread in _stuck if not thread.is_alive()])
    if len(_stuck) >= MAX_STUCK:
        return Outcome("refused", f"error: {MAX_STUCK} earlier calls have not returned")
    outcome = await _in_thread(chosen.function, given, seconds)
    return outcome if outcome.status == "timeout" else _cut(outcome.status, outcome.text, chars)


async def call_outside(
    run: Run, tools: Sequence[Tool], name: str, parameters: str, *, seconds: float, chars: int
) -> Outcome:
    """``call`` as something outside the run: its trace has the outcome, and a replay takes it from there.

    A tool that may not be repeated is called at most once, also where the process dies meanwhile and the run is gone
    on with: its outcome is "interrupted" then.
    """

    async def ask() -> dict[str, str]:
        return asdict(await call(tools, name, parameters, seconds=seconds, chars=chars))

    chosen = named(tools, name)
    once = chosen is not None and not chosen.repeatable
    interrupted = asdict(Outcome("interrupted", INTERRUPTED))
    return Outcome(**(await run.outside(name, ask, interrupted=interrupted) if once else await run.outside(name, ask)))


def named(tools: Sequence[Tool], name: str) -> Tool | None:
    """The tool of that name, if there is one."""
    return next((tool for tool in tools if tool.name == name), None)


def _cut(status: str, text: str, chars: int) -> Outcome:
    if len(text) <= chars:
        return Outcome(status, text)
    return Outcome("cut" if status == "ok" else status, f"{text[:chars]}… ({len(text) - chars} more characters)")


async def _in_thread(function: Function, given: dict[str, Json], seconds: float) -> Outcome:
    result: Future[Outcome] = Future()
    result.set_running_or_notify_cancel()  # so that the thread may end after nobody waits any more

    def work() -> None:
        result.set_result(_outcome(function, given, seconds))

    thread = threading.Thread(target=work, name=f"tool {getattr(function, '__name__', '')}", daemon=True)
    thread.start()
    try:
        return await asyncio.wait_for(asyncio.wrap_future(result), seconds)
    except TimeoutError:
        if thread.is_alive():
            _stuck.add(thread)
        return _timeout(seconds)


def _outcome(function: Function, given: dict[str, Json], seconds: float) -> Outcome:
    """What becomes of a call that may take its time. Whatever a tool raises is its result, SystemExit too."""
    try:
        value = function(**given)
        if inspect.iscoroutine(value):
            value = asyncio.run(asyncio.wait_for(value, seconds))
        if isinstance(value, Outcome):
            return value
        return Outcome(
            "ok", str(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
        )
    except TimeoutError:
        return _timeout(seconds)
    except BaseException as error:
        return Outcome("error", f"error: {type(error).__name__}: {error}")


def _timeout(seconds: float) -> Outcome:
    return Outcome("timeout", f"error: no result within {seconds:g} seconds")
