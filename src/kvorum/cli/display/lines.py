"""A run without panes: each finished line of a worker as one line of text, or one line of progress alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kvorum.cli.display.display import Display

if TYPE_CHECKING:
    from rich.status import Status

    from kvorum.cli.display.state import ShownRun
    from kvorum.store.events import Event


class Lines(Display):
    """Prints lines to standard output as they are finished, each with its worker's name in front; no colours."""

    def __init__(self, state: ShownRun) -> None:
        super().__init__(state)
        self._printed: dict[int, int] = {}

    def stop(self, error: BaseException | None) -> None:
        """Print the lines that are not finished, too."""
        if not isinstance(error, BrokenPipeError):
            self._print(whole=True)

    def event(self, event: Event) -> None:
        """Print the lines that ``event`` finished."""
        if event["event"] in ("tick", "move", "end"):
            self._print(whole=event["event"] == "end")

    def _print(self, whole: bool) -> None:
        wide = max((len(worker.name) for worker in self.state.workers.values()), default=0)
        for worker in self.state.workers.values():
            begun = self._printed.get(worker.index, 0)
            open_line = worker.lines and not worker.lines[-1].step.done and not whole
            ready = worker.lines[begun : len(worker.lines) - (1 if open_line else 0)]
            for line in ready:
                if line.text.strip():
                    print(f"{worker.name:{wide}} | {line.text.rstrip()}", flush=True)
            self._printed[worker.index] = begun + len(ready)


class ProgressLine(Display):
    """Standard output stays clean; a terminal on standard error shows one line of progress."""

    _status: Status | None = None

    def start(self) -> None:
        """Draw the line, where there is a terminal."""
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status(self.state.status)
            self._status.start()

    def stop(self, error: BaseException | None) -> None:
        """Take the progress line away, so that what is printed next begins on a line of its own."""
        if self._status is not None:
            self._status.stop()

    def event(self, event: Event) -> None:
        """Show how far the run is."""
        if self._status is not None and event["event"] == "tick":
            share = self.state.share()
            speed = f"{self.state.speed:.1f} tokens/s"
            self._status.update(f"{share.spent:.0f}/{share.limit:.0f} {share.name}, {speed}")
