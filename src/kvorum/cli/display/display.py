"""What every way of showing a run has in common."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from kvorum.cli.display.state import ShownRun
    from kvorum.store.events import Event


class Display:
    """Shows a run's state while its ``with`` block lasts."""

    def __init__(self, state: ShownRun) -> None:
        self.state = state

    def start(self) -> None:
        """Called once, before the first event of a run is shown."""

    def event(self, event: Event) -> None:
        """The state has taken up ``event``."""

    def stop(self, error: BaseException | None) -> None:
        """The run has ended, or was broken off by ``error``."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(error)
