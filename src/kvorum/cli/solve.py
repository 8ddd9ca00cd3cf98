"""`kvorum solve`, and the running of a team that `replay --resume` shares with it."""

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
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvorum.cli.board import Board, Event
from kvorum.cli.options import choose_model, engine_options, parse_budget, parse_params, parse_workers, read_problem
from kvorum.cli.signatures import signature
from kvorum.errors import KvorumError, OutOfPages

if TYPE_CHECKING:
    from argparse import Namespace
    from types import FrameType

    from rich.console import Console

    from kvorum.api import Engine
    from kvorum.cli.panes import Panes
    from kvorum.cli.stream import Quiet, Stream


class Interrupted(Exception):
    """A run that was stopped by Ctrl-C or a signal; the message says how to go on."""


def solve(args: Namespace) -> int:
    """Run a program on a problem. Returns the exit code: 1 where nobody gave an answer."""
    problem = read_problem(args.problem, args.file)
    program = signature(args.program)
    params = parse_params(program, args.param, {"layout": args.layout, "answer": args.answer})
    budget, workers = parse_budget(args.budget), parse_workers(args.workers)
    model = choose_model(args.model)
    options = engine_options(args)
    if args.quantize is not None:  # never beside --exact
        options["quantize"] = None if args.quantize == "none" else args.quantize

    def run(engine: Engine, **given: Any) -> float:
        from kvorum.programs import find
        from kvorum.runs.run import Task

        return engine.run(
            find(program.name), Task(problem), workers=workers, budget=budget, sampling=sampling(), seed=args.seed,
            trace=args.trace, **given, **params,
        ).seconds  # fmt: skip

    def sampling() -> Any:
        from kvorum.sampling.sampling import Sampling

        return Sampling(temperature=args.temperature, top_p=args.top_p)

    def check() -> None:
        from kvorum.programs import find
        from kvorum.runs.worker import choose_names

        find(program.name).check(params)
        choose_names(program.workers if workers is None else workers)
        sampling()

    if args.trace is not None:
        _writable(Path(args.trace))
    return perform(args, model, options, check, run, trace=args.trace)


def perform(
    args: Namespace,
    model: str,
    options: dict[str, Any],
    check: Callable[[], None],
    run: Callable[..., float],
    *,
    trace: str | None,
) -> int:
    """Load ``model`` and let ``run`` run on it, shown as the command line and the terminal ask for.

    Args:
        options: for ``Engine.load``. check: what can be refused before the model is loaded.
        run: gets the engine, ``listener`` and ``control``; returns the seconds. trace: where the run's trace is.
    """
    from rich.console import Console

    console = Console()
    board = Board()
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        board.feed(event)
        display.event(event)

    def control(live: Any) -> None:
        board.ledger = lambda: live.ledger.as_dict()

    engine: Engine | None = None
    if not is_ready(model):  # its bars and the panes cannot be drawn at once
        engine = load(model, options, board, check)
    display = choose_display(args, board, console)
    seconds = 0.0
    try:
        with terminable(), display:
            engine = engine or load(model, options, board, check)
            seconds = run(engine, listener=listen, control=control)
    except (KeyboardInterrupt, KvorumError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        if (
            trace is not None
            and engine is not None
            and isinstance(error, OSError)
            and not isinstance(error, KvorumError)
        ):
            error = OSError(error.errno, error.strerror, error.filename or trace)  # what else does a run write to?
        if board.ticks == 0:
            raise error
        if console.is_terminal and not args.json and not args.quiet:
            from kvorum.cli.summary import transcript

            transcript(board, console)
        hint = how_to_go_on(events, trace)
        if isinstance(error, OutOfPages):
            hint += f" --kv-tokens {2 * events[0]['model']['kv_tokens']}"
        if isinstance(error, KeyboardInterrupt):
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a second Ctrl-C breaks its tasks; nobody minds
            raise Interrupted(f"stopped after {board.ticks} ticks; {hint}") from error
        print(f"kvorum: the run stopped after {board.ticks} ticks; {hint}", file=sys.stderr)
        raise error
    finish(args, board, console, seconds=seconds, trace=trace)
    return 0 if board.end.get("answer") is not None else 1


def finish(args: Namespace, board: Board, console: Console, *, seconds: float, trace: str | None) -> None:
    """Print the end of a run."""
    from kvorum.cli.summary import as_json, report, transcript

    if args.json:
        print(json.dumps(as_json(board, seconds=seconds, trace=trace), ensure_ascii=False))
    elif args.quiet:
        print(board.end.get("answer") or "")
    else:
        if console.is_terminal and not console.is_dumb_terminal:
            transcript(board, console)
        report(board, console, seconds=seconds, trace=trace)


def choose_display(args: Namespace, board: Board, console: Console) -> Panes | Stream | Quiet:
    """Panes in a terminal, a plain stream in a pipe, nothing where only the result is asked for."""
    from kvorum.cli.stream import Quiet, Stream

    if args.json or args.quiet:
        return Quiet(board)
    if args.plain or not console.is_terminal or console.is_dumb_terminal:
        return Stream(board)
    from kvorum.cli.panes import Panes

    return Panes(board, console)


def is_ready(model: str) -> bool:
    """Whether the model can be loaded without fetching or converting it first."""
    from kvorum.models.cache_folder import entry_folder
    from kvorum.models.catalogue import CATALOGUE

    if model in CATALOGUE and not Path(model).exists():
        return entry_folder(CATALOGUE[model]).converted()
    return Path(model).is_dir()


def load(model: str, options: dict[str, Any], board: Board, check: Callable[[], None]) -> Engine:
    """The engine. Prints what has to be fetched first, with bars; says on the board what it is doing."""
    from kvorum.models.progress import terminal_progress

    # a start makes a million objects that all stay; collecting garbage among them takes a fifth of the time
    gc.disable()
    try:
        check()
        from kvorum.api import Engine

        board.status = f"loading {model}"
        if is_ready(model):
            return Engine.load(model, **options)
        _say_size(model)
        with terminal_progress(Path(model).name) as progress:
            return Engine.load(model, progress=progress, **options)
    finally:
        gc.enable()


def _say_size(model: str) -> None:
    from kvorum.models.cache_folder import entry_folder
    from kvorum.models.catalogue import CATALOGUE
    from kvorum.wording import size

    entry = CATALOGUE.get(model)
    if entry is not None and not entry_folder(entry).gguf.is_file():
        smallest = min(CATALOGUE.values(), key=lambda other: other.size)
        quick = f"; --model {smallest.name} ({size(smallest.size)}) is the quick look" * (smallest is not entry)
        print(f"{model} is fetched first, once: {size(entry.size)}, {entry.licence}{quick}.", file=sys.stderr)


def _writable(path: Path) -> None:
    """Find out now, not after the model is loaded, that a trace cannot be written. Leaves no file behind."""
    from kvorum.runs.trace import check_folder

    check_folder(path)
    fresh = not path.exists()
    with path.open("a", encoding="utf-8"):
        pass
    if fresh:
        path.unlink()


def how_to_go_on(events: Sequence[Event], trace: str | None) -> str:
    """Where the trace of a stopped run is, and what to do with it; without --trace it is kept in the cache folder."""
    path = trace
    if path is None:
        path = _keep(events)
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
