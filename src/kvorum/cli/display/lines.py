"""A run without panes: each finished line of a worker as one line of text, or one line of progress alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvorum.cli.display.state import ShownRun
from kvorum.cli.display.worker_lines import Looping
from kvorum.store.events import Event


@contextmanager
def lines(state: ShownRun) -> Iterator[Callable[[Event], None]]:
    """Prints lines to standard output as they are finished, each with its worker's name in front; no colours."""
    printed: dict[int, int] = {}
    told: dict[int, Looping | None] = {}

    def put(whole: bool) -> None:
        wide = max((len(worker.name) for worker in state.workers.values()), default=0)
        for worker in state.workers.values():
            begun = printed.get(worker.index, 0)
            open_line = worker.lines and not worker.lines[-1].done and not whole
            ready = worker.lines[begun : len(worker.lines) - (1 if open_line else 0)]
            for line in ready:
                if line.text.strip():
                    print(f"{worker.name:{wide}} | {line.text.rstrip()}", flush=True)
            printed[worker.index] = begun + len(ready)
            if worker.looping != told.get(worker.index):
                told[worker.index] = worker.looping
                print(f"{worker.name:{wide}} · {_of_loop(worker.looping)}", flush=True)

    def show(event: Event) -> None:
        state.feed(event)
        if event["event"] in ("tick", "move", "note", "end"):
            put(whole=event["event"] == "end")

    try:
        yield show
    finally:
        if not isinstance(sys.exception(), BrokenPipeError):
            put(whole=True)


def _of_loop(looping: Looping | None) -> str:
    if looping is None:
        return "loops no more"
    return looping.words + (", so it was ended" if looping.ended else "")


@contextmanager
def progress_line(state: ShownRun) -> Iterator[Callable[[Event], None]]:
    """Standard output stays clean; a terminal on standard error shows one line of progress while the run lasts."""
    if not sys.stderr.isatty():
        yield state.feed
        return
    from rich.console import Console

    with Console(stderr=True).status(state.status) as status:

        def show(event: Event) -> None:
            state.feed(event)
            if event["event"] == "tick":
                share = state.share()
                status.update(f"{share.spent:.0f}/{share.limit:.0f} {share.name}, {state.speed:.1f} tokens/s")

        yield show
