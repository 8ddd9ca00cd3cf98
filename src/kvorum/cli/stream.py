"""A run without a terminal: each finished line of a worker as one line of text, with its name in front; no colours.

`Quiet` shows nothing but, where standard error is a terminal, how far the run is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

    from kvorum.cli.board import Board, Event


class Stream:
    """Prints lines to standard output as they are finished."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._printed: dict[int, int] = {}

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None or not issubclass(kind, BrokenPipeError):
            self._print(whole=True)

    def event(self, event: Event) -> None:
        """The board has taken up ``event``: print the lines that it finished."""
        if event["event"] in ("tick", "move", "end"):
            self._print(whole=event["event"] == "end")

    def _print(self, whole: bool) -> None:
        wide = max((len(lane.name) for lane in self._board.lanes.values()), default=0)
        for lane in self._board.lanes.values():
            begun = self._printed.get(lane.index, 0)
            open_line = lane.lines and not lane.lines[-1].step.done and not whole
            ready = lane.lines[begun : len(lane.lines) - (1 if open_line else 0)]
            for line in ready:
                if line.text.strip():
                    print(f"{lane.name:{wide}} | {line.text.rstrip()}", flush=True)
            self._printed[lane.index] = begun + len(ready)


class Quiet:
    """Standard output stays clean; a terminal on standard error shows one line of progress."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._status: Status | None = None

    def __enter__(self) -> Quiet:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def event(self, event: Event) -> None:
        """The board has taken up ``event``: show how far it is."""
        if self._status is not None and event["event"] == "tick":
            name, spent, limit, _ = self._board.share()
            self._status.update(f"{spent:.0f}/{limit:.0f} {name}, {self._board.speed:.1f} tokens/s")
