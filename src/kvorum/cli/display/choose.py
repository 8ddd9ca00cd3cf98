"""The choice among the ways of showing a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvorum.cli.display.lines import Lines, ProgressLine

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console

    from kvorum.cli.display.display import Display
    from kvorum.cli.display.state import ShownRun


def choose_display(args: Namespace, state: ShownRun, console: Console) -> Display:
    """Panes in a terminal, lines of text in a pipe, one line of progress where only the result is asked for."""
    if args.json or args.quiet:
        return ProgressLine(state)
    if args.plain or not console.is_terminal or console.is_dumb_terminal:
        return Lines(state)
    from kvorum.cli.display.panes import Panes

    return Panes(state, console)
