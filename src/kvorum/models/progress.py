"""Progress of a pull or a conversion: the callback that reports it, and how it is drawn in the terminal.

`terminal_progress` draws one rich bar per stage, on stderr, so that what a command prints to stdout stays clean;
without a terminal, one line per stage.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total): "download" and "verify" count bytes, the others steps."""

_WORDS = {
    "download": "pulling",
    "verify": "checking",
    "convert": "converting (once)",
    "check": "comparing with its file (once)",
    "pack": "packing the weights of",
    "nodes": "waiting for the further machines (`kvorum follow`) of",
    "wait": "waiting for another kvorum",
}


def silent(stage: str, done: int, total: int) -> None:
    """The progress that shows nothing."""


@contextmanager
def terminal_progress(name: str) -> Iterator[Progress]:
    """Yields the callback to give to `pull` or `load_model`; the bars are left when the block ends."""
    if not sys.stderr.isatty():
        yield _plain(name)
        return
    from rich import progress as bars
    from rich.console import Console

    share, left = bars.TaskProgressColumn(), bars.TimeRemainingColumn(compact=True)
    columns = ("{task.description}", bars.BarColumn(bar_width=None), share, "{task.fields[size]}", left)
    with bars.Progress(*columns, console=Console(stderr=True), expand=True) as display:
        tasks: dict[str, bars.TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            size = f"{done / 1e6:.0f}/{total / 1e6:.0f} MB" if stage in ("download", "verify") else ""
            if stage not in tasks:  # what was there before this run must not count in the speed
                words = f"{_WORDS.get(stage, stage)} {name}"
                tasks[stage] = display.add_task(words, total=total, completed=done, size=size)
            display.update(tasks[stage], completed=done, total=total, size=size)

        yield report


def _plain(name: str) -> Progress:
    begun: set[str] = set()

    def report(stage: str, done: int, total: int) -> None:
        if stage not in begun:
            begun.add(stage)
            print(f"{_WORDS.get(stage, stage)} {name} ...", file=sys.stderr)

    return report
