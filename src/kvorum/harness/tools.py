"""Tools: typed Python callables that a model may call, with limits, so that none can crash, flood or hold up a run."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.runs.run import Run

Function: TypeAlias = Callable[..., Any]
"""What a tool calls; what it returns is given to the model as text, or as JSON where it is no text."""
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
MAX_STUCK = 8
"""So many calls may be left behind unfinished by one process before further ones are refused."""
_stuck: set[threading.Thread] = set()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: ``status`` "ok", "cut" (the result was too long), "error", "timeout" or "refused"."""

    status: str
    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A callable, plain or ``async``, its name, what it is for, and its parameters."""

    name: str
    summary: str
    function: Function
    properties: Mapping[str, JsonObject]
    """The schema of each parameter, by name."""
    required: Sequence[str] = ()
    """Parameters without a default."""

    @property
    def parameters(self) -> dict[str, Json]:
        """The JSON schema of the object of all parameters."""
        return closed_object(self.properties, self.required)

    @property
    def schema(self) -> dict[str, Json]:
        """The schema of a ``tooluse`` of this tool; the result is filled in by the runtime."""
        fields: dict[str, Json] = {
            "tool_name": {"const": self.name},
            "parameters": self.parameters,
            "tool_result": {"type": "string"},
        }
        return closed_object(fields, list(fields))


def closed_object(properties: Mapping[str, Json], required: Sequence[str]) -> dict[str, Json]:
    """The JSON schema of an object that has nothing but these properties."""
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def tool(function: Function) -> Tool:
    """A tool from a function whose parameters are annotated: str, int, float, bool, list of these, or a Literal.

    Raises:
        BadRequest: a parameter without such an annotation.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError) as error:
        raise BadRequest(f"The types of tool {name} cannot be read: {error}") from error
    properties: dict[str, JsonObject] = {}
    required = []
    for parameter in inspect.signature(function).parameters.values():
        properties[parameter.name] = _schema(hints.get(parameter.name), f"{name}({parameter.name})")
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    return Tool(name.lstrip("_"), (inspect.getdoc(function) or "").split("\n")[0], function, properties, required)


def _schema(hint: object, where: str) -> dict[str, Json]:
    if isinstance(hint, type) and hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) is list and get_args(hint)[0] in _PLAIN:
        return {"type": "array", "items": _schema(get_args(hint)[0], where)}
    raise BadRequest(f"{where}: annotate it as str, int, float, bool, a list of these, or a Literal.")


async def call(tools: Sequence[Tool], name: str, parameters: str, *, seconds: float, chars: int) -> Outcome:
    """Call the tool of that name with a JSON object of parameters. Never raises for what a tool or a model does.

    It runs in a thread of its own, an ``async`` one in an event loop there, so that not even one that blocks its loop
    or refuses to be cancelled holds up the run. What does not return in ``seconds`` is left behind, for Python cannot
    end a thread: its thread goes on, and does not keep the process alive.
    """
    chosen = next((tool for tool in tools if tool.name == name), None)
    if chosen is None:
        return Outcome("error", f"error: there is no tool {name!r}")
    try:
        given = json.loads(parameters)
        if not isinstance(given, dict):
            raise TypeError("the parameters are not an object")
        inspect.signature(chosen.function).bind(**given)
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
    """``call`` as something outside the run: its trace has the outcome, and a replay takes it from there."""

    async def ask() -> dict[str, str]:
        return asdict(await call(tools, name, parameters, seconds=seconds, chars=chars))

    return Outcome(**await run.outside(name, ask))


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
        return Outcome(
            "ok", str(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
        )
    except TimeoutError:
        return _timeout(seconds)
    except BaseException as error:
        return Outcome("error", f"error: {type(error).__name__}: {error}")


def _timeout(seconds: float) -> Outcome:
    return Outcome("timeout", f"error: no result within {seconds:g} seconds")
