"""Steering a run while it goes on: commands, and the gate that holds it between two ticks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks of a run while it goes on.

    ``kind``: ``join``, ``leave``, ``say`` (to a worker), ``share`` (to all, in the shared history where the program has
    one) or ``answer`` (now). ``text``: the words that are said or shared.
    """

    kind: str
    worker: str = ""
    text: str = ""


class Gate:
    """Holds a run between two ticks while it is paused. To be used on the run's event loop alone."""

    def __init__(self) -> None:
        self.paused = False
        self._steps = 0
        self._open: asyncio.Event | None = None

    def pause(self) -> None:
        """Hold the run at the end of the tick that is under way."""
        self.paused, self._steps = True, 0

    def resume(self) -> None:
        """Let a paused run go on."""
        self.paused, self._steps = False, 0
        self._wake()

    def step(self, ticks: int = 1) -> None:
        """Let it do so many ticks and hold it again."""
        self.paused = True
        self._steps += ticks
        self._wake()

    def _wake(self) -> None:
        if self._open is not None:
            self._open.set()

    async def passed(self, ticks: int) -> None:
        """Wait until the run may go on; ``ticks`` were done since it was last asked."""
        self._steps = max(0, self._steps - ticks)
        while self.paused and not self._steps:
            self._open = asyncio.Event()
            await self._open.wait()


def spread(commands: Iterable[Command], names: Iterable[str]) -> list[Command]:
    """``commands`` with each ``share`` said to everyone, for programs without a shared history."""
    names = list(names)
    return [
        each
        for command in commands
        for each in ([Command("say", n, command.text) for n in names] if command.kind == "share" else [command])
    ]
