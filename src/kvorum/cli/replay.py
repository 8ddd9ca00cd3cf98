"""`kvorum replay`: check a trace token for token, go on with an unfinished one, or show what it holds.

A check runs the same program again, with the model, and compares every token that it would pick now with the one that
the trace has. Showing needs no model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from kvorum.cli.display.state import ShownRun, trace_clock
from kvorum.cli.recorded_run import RecordedRun, checked_start
from kvorum.errors import BadRequest, BadTrace
from kvorum.wording import plural

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.runs.run import Run
    from kvorum.store.events import Event, StartEvent, TickEvent


class _AllRepeated(BaseException):
    """All ticks of an unfinished trace were repeated. No program catches it as an error."""


def replay(args: Namespace) -> int:
    """Returns the exit code: 1 where the trace was not repeated exactly."""
    if args.resume and args.show:
        raise BadRequest("Take one of --resume and --show.")
    from kvorum.store.traces import read

    try:
        events = read(args.file)
    except OSError as error:
        raise BadRequest(f"The trace {args.file} cannot be read: {error.strerror}.") from error
    checked_start(events[0], args.file)
    if args.show:
        return _show(args, events)
    finished = any(event["event"] == "end" for event in events)
    if args.resume and finished:
        raise BadRequest(f"The run in {args.file} is finished; `kvorum replay {args.file} --show` shows it.")
    recorded = RecordedRun(args, events)
    if args.resume:
        from kvorum.cli.runner import perform

        return perform(args, recorded)
    return _check(args, recorded, finished)


def _show(args: Namespace, events: Sequence[Event]) -> int:
    """Play a trace without the model, at its own pace times ``--speed``; at speed 0 without pauses."""
    from rich.console import Console

    from kvorum.cli.runner import choose_display, finish

    console = Console()
    state = ShownRun(clock=trace_clock)
    now = 0.0
    with choose_display(args, state, console) as show:
        for event in events:
            if event["event"] in ("tick", "forward") and args.speed > 0:
                then = trace_clock(event)
                time.sleep(max(0.0, (then - now) / args.speed))
                now = then
            show(event)
        if args.hold and console.is_terminal:
            time.sleep(args.hold)
    if not state.end:
        print(f"The run is not finished; go on with: kvorum replay {args.file} --resume")
        return 0
    finish(args, state, console, seconds=state.elapsed, trace=args.file)
    return 0


def _check(args: Namespace, recorded: RecordedRun, finished: bool) -> int:
    """Run the trace again and say whether every token is the same."""
    from kvorum.cli.display.lines import progress_line
    from kvorum.cli.runner import load, terminable

    state = ShownRun()
    again: list[Event] = []
    runs: list[Run] = []
    ticks = [event for event in recorded.events if event["event"] == "tick"]
    differences: list[str] = []
    with terminable(), progress_line(state) as show:

        def listen(event: Event) -> None:
            again.append(event)
            show(event)
            if not finished and event["event"] == "tick" and event["n"] + 1 >= len(ticks):
                raise _AllRepeated

        engine = load(recorded.model, recorded.options, state, recorded.check)
        try:
            recorded.run(engine, listen, runs.append)
        except _AllRepeated:
            pass
        except BadTrace as error:
            if not runs:
                raise
            differences.append(str(error))
    differences = [_first_difference(found, ticks) for found in runs[0].differences] + differences
    if finished and not differences:
        differences += _ends_differ(recorded.events, again)
    changed = _changed_versions(recorded.start)
    made, tokens = runs[0].ledger.ticks, runs[0].ledger.decoded
    if args.json:
        found = {"identical": not differences, "ticks": made, "tokens": tokens, "finished": finished}
        print(json.dumps({**found, "differences": differences, "versions_changed": changed}, ensure_ascii=False))
    elif differences:
        print(f"not identical: {differences[0]}")
        if len(differences) > 1:
            print(f"{len(differences)} differences in {plural(made, 'tick')}; --json lists them")
        if changed:
            print(f"The trace was made with {', '.join(changed)}.")
    else:
        rest = "and the same answer" if finished else "of an unfinished run; --resume goes on with it"
        print(f"identical: {plural(made, 'tick')}, {plural(tokens, 'token')} decoded {rest}")
    return 1 if differences else 0


def _first_difference(found: str, ticks: Sequence[TickEvent]) -> str:
    """The engine's words, with the text of the token that the trace has."""
    where, _, rest = found.partition(": ")
    number, _, name = where.removeprefix("tick ").partition(", ")
    if number.isdigit() and int(number) < len(ticks):
        for row in ticks[int(number)]["rows"]:
            if row["worker"] == name:
                return f"{where} (writing {row['text']!r}): {rest}"
    return found


def _ends_differ(events: Sequence[Event], again: Sequence[Event]) -> list[str]:
    """In what two finished runs that picked the same tokens differ at their ends, if in anything."""
    ticks = [sum(event["event"] == "tick" for event in some) for some in (events, again)]
    if ticks[0] != ticks[1]:
        return [f"the trace ends after {plural(ticks[0], 'tick')} and the run after {ticks[1]}"]
    then, now = (next((e for e in reversed(some) if e["event"] == "end"), None) for some in (events, again))
    for name in ("answer", "outcome"):
        was, is_now = (None if end is None else end[name] for end in (then, now))
        if was != is_now:
            return [f"the trace ends with the {name} {was!r} and the run with {is_now!r}"]
    return []


def _changed_versions(start: StartEvent) -> list[str]:
    """Each library of another version now, with both versions."""
    changed = []
    for name, then in start["versions"].items():
        try:
            here = version(name)
        except PackageNotFoundError:
            here = "none"
        if here != then:
            changed.append(f"{name} {then} (here {here})")
    return changed
