"""`kvorum replay`: check a trace token for token, go on with an unfinished one, or show what it holds.

A check runs the same program again, with the model, and compares every token that it would pick now with the one that
the trace has. Showing needs no model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, cast

from kvorum.cli.board import Board, Event
from kvorum.cli.options import check_model
from kvorum.errors import BadRequest, BadTrace
from kvorum.store import events as typed

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.api import Engine

_TICK_SECONDS = 0.1
"""The pace of a shown trace that does not tell seconds."""


class _Checked(Exception):
    """All ticks of an unfinished trace were repeated."""


def replay(args: Namespace) -> int:
    """Returns the exit code: 1 where the trace was not repeated exactly."""
    if args.resume and args.show:
        raise BadRequest("Take one of --resume and --show.")
    from kvorum.store.traces import read

    try:
        events = read(args.file)
    except OSError as error:
        raise BadRequest(f"The trace {args.file} cannot be read: {error.strerror}.") from error
    _check_start(events, args.file)
    if args.show:
        return show(args, events)
    finished = any(event["event"] == "end" for event in events)
    if args.resume and finished:
        raise BadRequest(f"The run in {args.file} is finished; `kvorum replay {args.file} --show` shows it.")
    return resume(args, events) if args.resume else check(args, events, finished)


def show(args: Namespace, events: Sequence[Event]) -> int:
    """Play a trace without the model, at its own pace times ``--speed``; at speed 0 without pauses."""
    from rich.console import Console

    from kvorum.cli.solve import choose_display, finish

    console = Console()
    board = Board(clock=lambda event: float(event.get("seconds", _TICK_SECONDS * event.get("n", 0))))
    now = 0.0
    with choose_display(args, board, console) as display:
        for event in events:
            if event["event"] in ("tick", "forward") and args.speed > 0:
                then = float(event.get("seconds", now + _TICK_SECONDS))
                time.sleep(max(0.0, (then - now) / args.speed))
                now = then
            board.feed(event)
            display.event(event)
        if args.hold and console.is_terminal:
            time.sleep(args.hold)
    if not board.end:
        print(f"The run is not finished; go on with: kvorum replay {args.file} --resume")
        return 0
    finish(args, board, console, seconds=board.elapsed, trace=args.file)
    return 0


def resume(args: Namespace, events: Sequence[Event]) -> int:
    """Repeat what the trace has and go on from there; the trace file grows with the run."""
    from kvorum.cli.solve import perform

    was = _given(events[0], args.file)

    def run(engine: Engine, **given: Any) -> float:
        _same_model(engine, events[0], args)
        result = _run(engine, events, was, trace=args.file, **given)
        return float(result.seconds)

    return perform(args, _model(args, events[0]), _options(args, events[0]), lambda: None, run, trace=args.file)


def check(args: Namespace, events: Sequence[Event], finished: bool) -> int:
    """Run the trace again and say whether every token is the same."""
    from rich.console import Console

    from kvorum.cli.solve import load, terminable
    from kvorum.cli.stream import Quiet

    board = Board()
    display = Quiet(board)
    start = events[0]
    given = _given(start, args.file)
    again: list[Event] = []
    ticks = [event for event in events if event["event"] == "tick"]
    differences: list[str] = []

    def listen(event: Event) -> None:
        again.append(event)
        board.feed(event)
        display.event(event)
        if not finished and event["event"] == "tick" and event["n"] + 1 >= len(ticks):
            raise _Checked

    holder: list[Any] = []
    with terminable(), display:
        engine = load(_model(args, start), _options(args, start), board, lambda: None)
        _same_model(engine, start, args)
        try:
            _run(engine, events, given, listener=listen, control=holder.append)
        except _Checked:
            pass
        except BadTrace as error:
            differences.append(str(error))
    differences = [_first_difference(found, ticks) for found in holder[0].differences] + differences
    if finished and not differences:
        differences += _ends_differ(events, again)
    repeated = sum(event["event"] == "tick" for event in again)
    tokens = sum(len(event["rows"]) for event in again if event["event"] == "tick")
    changed = _changed_versions(start)
    if args.json:
        told = {"identical": not differences, "ticks": repeated, "tokens": tokens, "finished": finished}
        print(json.dumps({**told, "differences": differences, "versions_changed": changed}, ensure_ascii=False))
    elif differences:
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"not identical: {differences[0]}", markup=False)
        if len(differences) > 1:
            console.print(f"{len(differences)} differences in {repeated} ticks; --json lists them")
        if changed:
            console.print(f"The trace was made with {', '.join(changed)}.", markup=False)
    else:
        rest = "and the same answer" if finished else "of an unfinished run; --resume goes on with it"
        print(f"identical: {repeated} ticks, {tokens} tokens {rest}")
    return 1 if differences else 0


def _run(engine: Engine, events: Sequence[Event], was: dict[str, Any] | None = None, **given: Any) -> Any:
    from kvorum.programs import find

    start = events[0]
    was = _given(start, "the trace") if was is None else was
    return engine.run(
        find(start["program"]),
        workers=start["workers"],
        seed=start["seed"],
        replay=cast("Sequence[typed.Event]", events),
        **was,
        **given,
        **start["params"],
    )


def _given(start: Event, file: str) -> dict[str, Any]:
    """Task, budget, sampling, injections and later seeds of the start event. Raises BadTrace."""
    from kvorum.engine.budget import Budget
    from kvorum.runs.injection import Injection
    from kvorum.runs.run import Task
    from kvorum.sampling.sampling import Sampling

    task = start["task"]
    try:
        return {
            "task": Task(task["prompt"], name=task.get("name", ""), private=dict(task.get("private", {}))),
            "budget": Budget(**start["budget"]),
            "sampling": Sampling(**start["sampling"]),
            "inject": [Injection(**told) for told in start.get("inject", [])],
            "reseed": [(int(tick), int(seed)) for tick, seed in start.get("reseed", [])],
        }
    except (BadRequest, TypeError, ValueError) as error:
        told = str(error).rstrip(".")
        raise BadTrace(f"The first line of {file} holds what no run takes ({told}); the trace is damaged.") from error


def _check_start(events: Sequence[Event], file: str) -> None:
    """Raise BadTrace if the start event cannot be run again."""
    shape = {
        "program": str, "task": dict, "workers": list, "budget": dict, "sampling": dict, "seed": int, "model": dict,
        "params": dict, "versions": dict,
    }  # fmt: skip
    model = {"name": str, "dtype": str, "weights": str, "kv_tokens": int, "page_size": int}
    start = events[0]
    for part, wanted in (("", shape), ("task", {"prompt": str}), ("model", model)):
        for name, kind in wanted.items():
            if not isinstance((start[part] if part else start).get(name), kind):
                what = f"{part}'s {name}" if part else name
                raise BadTrace(f"The first line of {file} does not say the run's {what}; the trace is damaged.")
    if not all(isinstance(name, str) for name in start["workers"]):
        raise BadTrace(f"The first line of {file} has workers whose names are no text; the trace is damaged.")


def _model(args: Namespace, start: Event) -> str:
    return check_model(args.model if args.model is not None else start["model"]["name"])


def _options(args: Namespace, start: Event) -> dict[str, Any]:
    about = start["model"]
    return {
        "dtype": about["dtype"],
        "kv_dtype": about.get("kv_dtype", "auto"),
        "quantize": None if about["weights"] == "exact" else about["weights"],
        "kv_tokens": args.kv_tokens if args.kv_tokens is not None else about["kv_tokens"],
        "page_size": about["page_size"],
        "prefill_chunk": about.get("prefill_chunk", 512),
    }


def _same_model(engine: Engine, start: Event, args: Namespace) -> None:
    about, there = engine.about(), start["model"]
    names = ("dtype", "weights") if args.model is not None else ("name", "dtype", "weights")
    for name in names:
        if about[name] != there[name]:
            raise BadTrace(
                f"The trace was made with {there['name']} ({there['dtype']}, weights {there['weights']}) and this is "
                f"{about['name']} ({about['dtype']}, weights {about['weights']}): the tokens would differ."
            )


def _first_difference(found: str, ticks: list[Event]) -> str:
    """The engine's words, with the text of the token that the trace has."""
    where, _, rest = found.partition(": ")
    number, _, name = where.removeprefix("tick ").partition(", ")
    if number.isdigit() and int(number) < len(ticks):
        for row in ticks[int(number)]["rows"]:
            if row["worker"] == name:
                return f"{where} (writing {row['text']!r}): {rest}"
    return found


def _ends_differ(events: Sequence[Event], again: Sequence[Event]) -> list[str]:
    then = next(event for event in events if event["event"] == "end")
    now = next((event for event in again if event["event"] == "end"), {})
    ticks = [sum(event["event"] == "tick" for event in some) for some in (events, again)]
    if ticks[0] != ticks[1]:
        return [f"the trace ends after {ticks[0]} ticks and the run after {ticks[1]}"]
    for name in ("answer", "outcome"):
        if then.get(name) != now.get(name):
            return [f"the trace ends with the {name} {then.get(name)!r} and the run with {now.get(name)!r}"]
    return []


def _changed_versions(start: Event) -> list[str]:
    here = {name: _version(name) for name in start["versions"]}
    return [f"{name} {then} (here {here[name]})" for name, then in start["versions"].items() if here[name] != then]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
