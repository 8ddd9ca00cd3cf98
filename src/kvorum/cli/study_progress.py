"""How far a study is, shown while it runs, and how it went."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kvorum.cli.interrupts import Interrupted, terminable
from kvorum.wording import clock

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.lab.study.jobs import Progress


@contextmanager
def followed(args: Namespace, what: str) -> Iterator[Callable[[Progress], None]]:
    """Gives what to call after each of the study's ``what`` ("cells"), which shows how far it is.

    A status in a terminal, a line every ten seconds in a pipe, nothing with --json. Ctrl-C becomes `Interrupted`.
    """
    seen: list[Progress] = []
    with terminable(), _shown(args, what) as show:

        def tell(progress: Progress) -> None:
            seen[:] = [progress]
            show(progress)

        try:
            yield tell
        except KeyboardInterrupt as error:
            done = f"{seen[0].done} of {seen[0].total} {what} are done" if seen else "nothing was run"
            raise Interrupted(f"stopped; {done}; the same command goes on") from error


@contextmanager
def _shown(args: Namespace, what: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console

    console = Console(stderr=True)
    if args.json:
        yield lambda progress: None
    elif console.is_terminal:
        with console.status("loading") as status:
            yield lambda progress: status.update(_words(progress, what))
    else:
        last = 0.0

        def line(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last > 10 or progress.done == progress.total:
                last = time.monotonic()
                print(_words(progress, what), file=sys.stderr, flush=True)

        yield line


def _words(progress: Progress, what: str) -> str:
    left = "" if progress.left is None else f", about {clock(progress.left)} left"
    failed = f", {len(progress.failed)} failed" if progress.failed else ""
    return f"{progress.done} of {progress.total} {what}, {clock(progress.seconds)}{left}{failed}"


def exit_code(progress: Progress) -> int:
    """1 where something failed, of which the first five are told on standard error."""
    for line in progress.failed[:5]:
        print(f"kvorum: failed: {line}", file=sys.stderr)
    return 1 if progress.failed else 0
