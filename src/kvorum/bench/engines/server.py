"""The process of one side: does what it is asked through a pipe, until nobody is left who could ask.

A process for each side tells their memory apart, and keeps one engine's threads out of another's way.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from kvorum.bench import machine
from kvorum.bench.engines.registry import make
from kvorum.bench.engines.side import Side, SideOptions, Tick, seconds
from kvorum.bench.result import About, Crowd, Loaded
from kvorum.errors import BenchError, KvorumError
from kvorum.wording import first_line

if TYPE_CHECKING:
    from kvorum.bench.engines.kvorum import Shared
    from kvorum.bench.quality import Score

REFUSALS = (KvorumError, MemoryError, RuntimeError)
"""What a side may answer with. Anything else ends its process."""


class Server:
    """One side. Jobs (ticks that can be timed) are open under keys, several at a time."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._jobs: dict[Hashable, tuple[AbstractContextManager[Tick], Tick]] = {}

    def read(self, ids: Sequence[int]) -> float:
        """Let the side read ``ids`` as its context. Returns the seconds of it."""
        machine.forget_peak()
        return self.side.read(ids)

    def open(self, /, key: Hashable, kind: str = "team", **arguments: int) -> None:
        """Make a job: ``kind`` is a method of the side that gives a tick."""
        machine.forget_peak()
        held: AbstractContextManager[Tick] = getattr(self.side, kind)(**arguments)
        self._jobs[key] = (held, held.__enter__())

    def tick(self, key: Hashable) -> float:
        """Seconds of one tick, made after one that is not timed: the caches are this side's again."""
        _, job = self._jobs[key]
        job()
        return seconds(job)

    def close(self, key: Hashable) -> None:
        """Let go of a job and of what its context takes in the other process."""
        held, _ = self._jobs.pop(key)
        held.__exit__(None, None, None)

    def peak(self) -> int:
        """The most bytes that the process has held since it last read, or opened a job."""
        return machine.peak()

    def about(self, model: str) -> About:
        """The machine, and what kvorum says of its engine, with the model called ``model``."""
        return self._ours().about(model)

    def crowd(self, teams: int, workers: int, context: int, repeats: int) -> Crowd:
        """See `Shared.crowd`."""
        return self._ours().crowd(teams, workers, context, repeats)

    def score(self, most: int, at_once: int) -> Score:
        """See `quality.score`."""
        from kvorum.bench.quality import score, text

        return score(self._ours().engine, text(), most, at_once)

    def _ours(self) -> Shared:
        from kvorum.bench.engines.kvorum import Shared

        assert isinstance(self.side, Shared)
        return self.side


def serve(requests: Connection, log: str, options: SideOptions) -> None:
    """Load the side, tell what memory that took, and do what is asked until nobody is left who could ask.

    Each request is a method of `Server` with its arguments, each reply what it returns, or a BenchError of one line.
    What the engine prints goes to the file ``log``.
    """
    if sys.platform != "win32":
        os.setsid()  # Ctrl-C is meant for the bench, which ends its sides
    printed = os.open(log, os.O_WRONLY)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    before = machine.resident()
    try:
        server = Server(make(options))
    except REFUSALS as error:
        requests.send(_in_a_line(error))
        return
    requests.send(Loaded(before, machine.resident()))
    with contextlib.suppress(EOFError):
        while True:
            verb, arguments = requests.recv()
            try:
                reply = verb(server, **arguments)
            except REFUSALS as error:
                reply = _in_a_line(error)
            requests.send(reply)


def _in_a_line(error: Exception) -> BenchError:
    return BenchError(first_line(error).rstrip("."))
