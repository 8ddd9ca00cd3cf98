"""Running a team as the command line and the terminal ask for: its model loaded, the run shown, stopped in good order.

`solve` and `replay --resume` share all of it; other commands load a model and end alike.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kvorum.cli.arguments import accepts_licence
from kvorum.cli.display.lines import lines, progress_line
from kvorum.cli.display.state import ShownRun
from kvorum.errors import KvorumError, OutOfPages
from kvorum.wording import harmless, plural, size

if TYPE_CHECKING:
    from argparse import Namespace
    from types import FrameType

    from rich.console import Console

    from kvorum.api import Engine
    from kvorum.cli.arguments import LoadOptions
    from kvorum.runs.run import Run
    from kvorum.runs.start import Result
    from kvorum.store.events import Event


TEAMS = "One worker wrote this. Teams: `kvorum programs`; models below about 4B mostly do worse in them."
"""Said where nobody chose a program."""


class PlannedRun(Protocol):
    """A run that is to be made: of which model, loaded how, with its trace in which file."""

    model: str
    options: LoadOptions
    trace: str | None

    def check(self) -> None:
        """Raises for what can be refused before the model is loaded."""

    def run(self, engine: Engine, listener: Callable[[Event], None], control: Callable[[Run], None]) -> Result:
        """Make the run; each of its events goes to ``listener``, the run itself to ``control``."""


def perform(args: Namespace, planned: PlannedRun, end: Callable[[Result, ShownRun, Console], int] | None = None) -> int:
    """Load the model and run it, shown as the command line and the terminal ask for.

    Returns the exit code: 1 where nobody gave an answer. ``end``: prints the end of the run and returns the exit code,
    in the place of ``finish``.
    """
    from rich.console import Console

    from kvorum.cli.approval import ask_approval
    from kvorum.store.events import note_data

    console = Console()
    state = ShownRun()
    events: list[Event] = []

    runs: list[Run] = []

    def control(run: Run) -> None:
        state.ledger = lambda: run.ledger
        runs.append(run)

    engine: Engine | None = None
    if not loads_at_once(planned.model, planned.options):  # its bars and the panes cannot be drawn at once
        engine = load(planned.model, planned.options, state, planned.check, quiet=args.quiet)
    try:
        with terminable(), choose_display(args, state, console) as show:

            def listen(event: Event) -> None:
                events.append(event)
                show(event)
                if event["event"] == "note" and event["kind"] == "approval":
                    runs[0].commands.append(ask_approval(note_data(event), yes=getattr(args, "yes", False)))

            engine = engine or load(planned.model, planned.options, state, planned.check, quiet=args.quiet)
            result = planned.run(engine, listen, control)
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, KvorumError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, KvorumError) and engine is not None:
            error.filename = error.filename or planned.trace  # what else does a run write to?
        if state.ticks == 0:
            raise
        if console.is_terminal and not args.json and not args.quiet:
            from kvorum.cli.display.summary import transcript

            transcript(state, console)
        hint = _how_to_go_on(events, planned.trace)
        if isinstance(error, OutOfPages) and state.start is not None:
            hint += f" --kv-tokens {2 * state.start['model']['kv_tokens']}"
        if isinstance(error, KeyboardInterrupt):
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a second Ctrl-C breaks its tasks; nobody minds
            raise KeyboardInterrupt(f"stopped after {plural(state.ticks, 'tick')}; {hint}") from error
        print(f"kvorum: the run stopped after {plural(state.ticks, 'tick')}; {hint}", file=sys.stderr)
        raise
    if end is not None:
        return end(result, state, console)
    finish(args, state, console, seconds=result.seconds, trace=planned.trace)
    return 0 if result.answer is not None else 1


def choose_display(
    args: Namespace, state: ShownRun, console: Console
) -> AbstractContextManager[Callable[[Event], None]]:
    """Panes in a terminal, lines of text in a pipe, one line of progress where only the result is asked for.

    Each gives what takes up an event into the state and shows it.
    """
    if args.json or args.quiet:
        return progress_line(state)
    if args.lines or not console.is_terminal or console.is_dumb_terminal:
        return lines(state)
    from kvorum.cli.display.panes import panes

    return panes(state, console)


def finish(args: Namespace, state: ShownRun, console: Console, *, seconds: float, trace: str | None) -> None:
    """Print the end of a run."""
    from kvorum.cli.display.summary import print_json, report, transcript

    if args.json:
        print_json(state, seconds=seconds, trace=trace)
    elif args.quiet:
        if state.answer is not None:
            print(harmless(state.answer) if console.is_terminal else state.answer)
        else:
            written = [f"{worker.name}: {''.join(worker.picked)}" for worker in state.workers.values()]
            print(harmless("\n".join(["kvorum: no answer. What was written:", *written])), file=sys.stderr)
    else:
        if console.is_terminal and not console.is_dumb_terminal:
            transcript(state, console)
        report(state, console, seconds=seconds, trace=trace)
        if getattr(args, "program", "") is None and state.start is not None and args.command == "solve":
            print(TEAMS, file=sys.stderr)


# -- loading a model -----------------------------------------------------------------------------------------------


def loads_at_once(model: str, options: LoadOptions) -> bool:
    """Whether nothing has to be fetched or converted first, and no other machine has to come."""
    from kvorum.models.adapter_config import named_base
    from kvorum.models.cache_folder import entry_folder
    from kvorum.models.catalogue import Entry, locate

    found = locate(named_base(model) or model)
    ready = entry_folder(found).converted() if isinstance(found, Entry) else found is not None and found.is_dir()
    return ready and options.get("nodes", 1) <= 1


def load(
    model: str, options: LoadOptions, state: ShownRun, check: Callable[[], None], *, quiet: bool = False
) -> Engine:
    """The engine. Prints what has to be fetched first, with bars, unless ``quiet``; says on the state what it is doing.

    ``check`` raises for what can be refused before the model is loaded.
    """
    collects = gc.isenabled()
    gc.disable()  # a start makes a million objects that all stay; collecting among them takes a fifth of its time
    try:
        check()
        from kvorum.api import Engine
        from kvorum.backends.local.backend import LocalBackend
        from kvorum.models.progress import terminal_progress

        state.status = f"loading {harmless(model)}"
        options = {**options, "accept_licence": accepts_licence(model)}
        if quiet or loads_at_once(model, options):
            engine = Engine.load(model, **options)
        else:
            _say_size(model)
            with terminal_progress(Path(model).name) as progress:
                engine = Engine.load(model, progress=progress, **options)
        if isinstance(engine.backend, LocalBackend) and (lost := engine.backend.lost()) is not None:
            print(lost, file=sys.stderr)
        return engine
    finally:
        if collects:
            gc.enable()


def _say_size(model: str) -> None:
    from kvorum.models.cache_folder import entry_folder
    from kvorum.models.catalogue import CATALOGUE, Entry, locate

    entry = locate(model)
    if isinstance(entry, Entry) and not entry_folder(entry).gguf.is_file():
        smallest = min(CATALOGUE.values(), key=lambda other: other.size)
        quick = f"; --model {smallest.name} ({size(smallest.size)}) is the quick look" * (smallest is not entry)
        print(f"{model} is fetched first, once: {size(entry.size)}, {entry.licence}{quick}.", file=sys.stderr)


# -- stopping ------------------------------------------------------------------------------------------------------


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, so that the terminal is left in order and the trace is kept."""

    def stop(number: int, frame: FrameType | None) -> None:
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # a shell's background job ignores Ctrl-C
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _how_to_go_on(events: Sequence[Event], trace: str | None) -> str:
    """Where the trace of a stopped run is, and what to do with it; without --trace it is kept in the cache folder."""
    path = trace if trace is not None else _keep(events)
    if path is None:
        return "its trace could not be kept"
    return f"its trace is {path}; go on with: kvorum replay {path} --resume"


def _keep(events: Sequence[Event]) -> str | None:
    from kvorum.models.cache_folder import cache_root

    text = "".join(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n" for event in events)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl"
    for folder in (cache_root() / "stopped", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return str(folder / name)
    return None
