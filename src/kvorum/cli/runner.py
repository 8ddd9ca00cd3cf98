"""Running a team as the command line and the terminal ask for; `solve` and `replay --resume` share it."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kvorum.cli.display.choose import choose_display
from kvorum.cli.display.state import ShownRun
from kvorum.cli.interrupts import Interrupted, terminable
from kvorum.cli.loading import is_ready, load
from kvorum.errors import KvorumError, OutOfPages

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console

    from kvorum.api import Engine
    from kvorum.cli.arguments import LoadOptions
    from kvorum.runs.run import Run
    from kvorum.store.events import Event


class Job(Protocol):
    """A run that is to be made: of which model, loaded how, with its trace in which file."""

    model: str
    options: LoadOptions
    trace: str | None

    def check(self) -> None:
        """Raises for what can be refused before the model is loaded."""

    def run(self, engine: Engine, listener: Callable[[Event], None], control: Callable[[Run], None]) -> float:
        """Run it. Returns its seconds."""


def perform(args: Namespace, job: Job) -> int:
    """Load the job's model and run it, shown as the command line and the terminal ask for.

    Returns the exit code: 1 where nobody gave an answer.
    """
    from rich.console import Console

    console = Console()
    state = ShownRun()
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        state.feed(event)
        display.event(event)

    def control(run: Run) -> None:
        state.ledger = lambda: run.ledger

    engine: Engine | None = None
    if not is_ready(job.model):  # its bars and the panes cannot be drawn at once
        engine = load(job.model, job.options, state, job.check)
    display = choose_display(args, state, console)
    try:
        with terminable(), display:
            engine = engine or load(job.model, job.options, state, job.check)
            seconds = job.run(engine, listen, control)
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, KvorumError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, KvorumError) and engine is not None:
            error.filename = error.filename or job.trace  # what else does a run write to?
        if state.ticks == 0:
            raise
        if console.is_terminal and not args.json and not args.quiet:
            from kvorum.cli.display.summary import transcript

            transcript(state, console)
        hint = _how_to_go_on(events, job.trace)
        if isinstance(error, OutOfPages) and state.start is not None:
            hint += f" --kv-tokens {2 * state.start['model']['kv_tokens']}"
        if isinstance(error, KeyboardInterrupt):
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a second Ctrl-C breaks its tasks; nobody minds
            raise Interrupted(f"stopped after {state.ticks} ticks; {hint}") from error
        print(f"kvorum: the run stopped after {state.ticks} ticks; {hint}", file=sys.stderr)
        raise
    finish(args, state, console, seconds=seconds, trace=job.trace)
    return 0 if state.answer is not None else 1


def finish(args: Namespace, state: ShownRun, console: Console, *, seconds: float, trace: str | None) -> None:
    """Print the end of a run."""
    from kvorum.cli.display.summary import as_json, report, transcript

    if args.json:
        print(json.dumps(as_json(state, seconds=seconds, trace=trace), ensure_ascii=False))
    elif args.quiet:
        print(state.answer or "")
    else:
        if console.is_terminal and not console.is_dumb_terminal:
            transcript(state, console)
        report(state, console, seconds=seconds, trace=trace)


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
