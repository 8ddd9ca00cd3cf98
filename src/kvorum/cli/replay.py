"""`kvorum replay`: check a trace token for token, go on with an unfinished one, or show what it holds.

A check runs the same program again, with the model, and compares every token that it would pick now with the one that
the trace has. Showing needs no model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import LoadOptions, check_model, spread_options
from kvorum.cli.display.lines import progress_line
from kvorum.cli.display.state import ShownRun, trace_clock
from kvorum.cli.planned_run import choose_display, finish, load, perform, terminable
from kvorum.errors import BadRequest, BadTrace, ProgramError
from kvorum.versions import installed_version
from kvorum.wording import harmless, plural

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.api import Engine
    from kvorum.runs.run import Run
    from kvorum.runs.start import Result
    from kvorum.store.events import Event, ModelData, StartEvent


def replay(args: Namespace) -> int:
    """Returns the exit code: 1 where the trace was not repeated exactly."""
    if args.resume and args.show:
        raise BadRequest("Take one of --resume and --show.")
    from kvorum.store.traces import read

    try:
        events = read(args.file)
    except OSError as error:
        raise BadRequest(f"The trace {args.file} cannot be read: {error.strerror}.") from error
    if args.show:
        return _show(args, events)
    finished = any(event["event"] == "end" for event in events)
    if args.resume and finished:
        raise BadRequest(f"The run in {args.file} is finished; `kvorum replay {args.file} --show` shows it.")
    recorded = RecordedRun(args, events)
    if args.resume:
        return perform(args, recorded)
    return _check(args, recorded, finished)


def _show(args: Namespace, events: Sequence[Event]) -> int:
    """Play a trace without the model, at its own pace times ``--speed``; at speed 0 without pauses."""
    from rich.console import Console

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


class _AllRepeated(BaseException):
    """All ticks of an unfinished trace were repeated. No program catches it as an error."""


def _check(args: Namespace, recorded: RecordedRun, finished: bool) -> int:
    """Run the trace again and say whether every token is the same."""
    state = ShownRun()
    runs: list[Run] = []
    ticks = sum(event["event"] == "tick" for event in recorded.events)
    differences: list[str] = []
    with terminable(), progress_line(state) as show:

        def listen(event: Event) -> None:
            show(event)
            if not finished and event["event"] == "tick" and event["n"] + 1 >= ticks:
                raise _AllRepeated

        engine = load(recorded.model, recorded.options, state, recorded.check, quiet=args.quiet)
        try:
            recorded.run(engine, listen, runs.append)
        except _AllRepeated:
            pass
        except BadTrace as error:
            if not runs:
                raise
            differences.append(str(error))
    differences = runs[0].state.differences + differences
    if finished and not differences:
        differences += _ends_differ(recorded.events, state)
    changed = _changed_versions(recorded.start)
    made, tokens = runs[0].ledger.ticks, runs[0].ledger.decoded
    if args.json:
        found = {"identical": not differences, "ticks": made, "tokens": tokens, "finished": finished}
        print(json.dumps({**found, "differences": differences, "versions_changed": changed}, ensure_ascii=False))
    elif differences:
        print(harmless(f"not identical: {differences[0]}"))
        if len(differences) > 1:
            print(f"{len(differences)} differences in {plural(made, 'tick')}; --json lists them")
        if changed:
            print(harmless(f"The trace was made with {', '.join(changed)}."))
    else:
        rest = "and the same answer" if finished else "of an unfinished run; --resume goes on with it"
        print(f"identical: {plural(made, 'tick')}, {plural(tokens, 'token')} decoded {rest}")
    return 1 if differences else 0


def _ends_differ(events: Sequence[Event], again: ShownRun) -> list[str]:
    """In what two finished runs that picked the same tokens differ at their ends, if in anything."""
    ticks = sum(event["event"] == "tick" for event in events)
    if ticks != again.ticks:
        return [f"the trace ends after {plural(ticks, 'tick')} and the run after {again.ticks}"]
    then, now = next(event for event in reversed(events) if event["event"] == "end"), again.end
    for name in ("answer", "outcome"):
        if now is not None and then[name] != now[name]:
            return [f"the trace ends with the {name} {then[name]!r} and the run with {now[name]!r}"]
    return []


def _changed_versions(start: StartEvent) -> list[str]:
    """Each library of another version now, with both versions."""
    found = [(name, then, installed_version(name) or "none") for name, then in start["versions"].items()]
    return [f"{name} {then} (here {here})" for name, then, here in found if here != then]


def _adapter(args: Namespace, about: ModelData) -> str | None:
    """The folder to merge: where it is now, or was then; None where the model was loaded by its name."""
    adapter = about.get("adapter")
    if args.adapter is not None:
        return str(Path(args.adapter).resolve())
    if adapter is None or Path(adapter["folder"]) == Path(about["name"]).expanduser():
        return None
    return adapter["folder"]


def _spread(args: Namespace, about: ModelData) -> LoadOptions:
    """The backend and the degrees of the trace, unless others are asked for."""
    recorded = "vllm" if about.get("backend", "").startswith("vllm") else "local"
    found = LoadOptions(backend=args.backend or recorded)
    if found["backend"] == recorded == "vllm":
        found["tensor_parallel"] = about.get("tensor_parallel", 1)
        found["pipeline_parallel"] = about.get("pipeline_parallel", 1)
    return {**found, **spread_options(args)}


# -- the run of a trace -----------------------------------------------------------------------------------------------


class RecordedRun:
    """The run of ``args.file``, whose tokens are taken from its events; a `runner.PlannedRun`.

    ``args`` may say where its model and its program are now. With ``args.resume`` the trace file grows with it.

    Raises:
        BadTrace: the start event holds what no run takes.
    """

    def __init__(self, args: Namespace, events: Sequence[Event]) -> None:
        from kvorum.engine.budget import Budget
        from kvorum.runs.injection import Injection
        from kvorum.runs.program import Task
        from kvorum.sampling.grammar import Grammar
        from kvorum.sampling.sampling import Sampling

        start = self.start = next(event for event in events if event["event"] == "start")
        task = start["task"]
        about = start["model"]
        self.args, self.events = args, events
        self.trace: str | None = args.file if args.resume else None
        self.model = check_model(about["name"] if args.model is None else args.model)
        loaded = LoadOptions(
            dtype=about["dtype"],
            kv_dtype=about.get("kv_dtype", "auto"),
            quantize=None if about["weights"] == "exact" else about["weights"],
            kv_tokens=about["kv_tokens"] if args.kv_tokens is None else args.kv_tokens,
            page_size=about["page_size"],
            prefill_chunk=about.get("prefill_chunk", 512),
            ignore_unknown=args.ignore_unknown or bool(about.get("unused")),
        )
        if (adapter := _adapter(args, about)) is not None:
            loaded["adapter"] = adapter
        self.options: LoadOptions = {**loaded, **_spread(args, about)}
        try:
            self.task = Task(task["prompt"], name=task.get("name", ""), private=dict(task.get("private", {})))
            self.budget = Budget(**start["budget"])
            grammar = Grammar(**start["grammar"]) if "grammar" in start else None
            self.sampling = Sampling(**start["sampling"], grammar=grammar)
            self.inject = [Injection(**given) for given in start.get("inject", [])]
            self.reseed = [(int(tick), int(seed)) for tick, seed in start.get("reseed", [])]
        except (BadRequest, TypeError, ValueError) as error:
            why = str(error).rstrip(".")
            raise BadTrace(
                f"The first line of {args.file} holds what no run takes ({why}); the trace is damaged."
            ) from error

    def check(self) -> None:
        """Raises UnknownName or ProgramError, before the model is loaded, where the program is not there."""
        from kvorum.programs import load

        try:
            self.program = load(self.args.program or self.start.get("where") or self.start["program"])
        except ProgramError as error:
            error.add_note("The trace names this program; where it is elsewhere now, say so: -p FILE.py:NAME.")
            raise

    def run(self, engine: Engine, listener: Callable[[Event], None], control: Callable[[Run], None]) -> Result:
        """Run it again.

        Raises:
            BadTrace: the engine computes other tokens than the trace's would, or the run differs from it.
        """
        self._check_engine(engine)
        return engine.run(
            self.program,
            self.task,
            workers=self.start["workers"],
            seed=self.start["seed"],
            budget=self.budget,
            sampling=self.sampling,
            inject=self.inject,
            reseed=self.reseed,
            thinking=self.start.get("thinking"),
            replay=self.events,
            trace=self.trace,
            listener=listener,
            control=control,
            **self.start["params"],  # type: ignore[arg-type]
        )

    def _check_engine(self, engine: Engine) -> None:
        about, there = engine.about(), self.start["model"]
        adapter = there.get("adapter")
        if (adapter and adapter["sha256"]) != (engine.adapter and engine.adapter.sha256):
            was = f"the adapter {adapter['folder']}, as it was then," if adapter else "no adapter"
            raise BadTrace(f"The trace was made with {was} in the model's weights: the tokens would differ.")
        here, then = ((model["name"], model["dtype"], model["weights"]) for model in (about, there))
        same = here == then if self.args.model is None else here[1:] == then[1:]  # who says where it is knows its name
        if not same:
            raise BadTrace(
                f"The trace was made with {then[0]} ({then[1]}, weights {then[2]}) and this is "
                f"{here[0]} ({here[1]}, weights {here[2]}): the tokens would differ."
            )
