"""The process of one side: JSON requests on standard input, one a line; one JSON reply a line on standard output.

A process for each side tells their memory apart, and keeps one engine's threads out of another's way. What the engine
prints goes to standard error. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from typing import IO, TYPE_CHECKING

from kvorum.bench import memory
from kvorum.bench.sides.messages import (
    Closed,
    EngineFigures,
    Loaded,
    Machine,
    ManyTeams,
    Opened,
    Read,
    Score,
    Ticked,
)
from kvorum.bench.sides.registry import make
from kvorum.bench.sides.side import Side, Tick
from kvorum.errors import KvorumError

if TYPE_CHECKING:
    from kvorum.bench.sides.kvorum import Shared

Reply = Loaded | Machine | EngineFigures | Read | Opened | Ticked | Closed | ManyTeams | Score


class Server:
    """Does what requests ask of one side. Jobs (ticks that can be timed) are open under keys, several at a time."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._jobs: dict[str, tuple[AbstractContextManager[Tick], Tick]] = {}

    def about(self) -> EngineFigures:
        """What kvorum says of its engine."""
        return self._ours().about()

    def machine(self) -> Machine:
        """The machine, and its memory's bandwidth."""
        from kvorum.bench.sides.machine import about

        return about()

    def read(self, ids: Sequence[int]) -> Read:
        """Let the side read ``ids`` as its context."""
        memory.forget_peak()
        return Read(self.side.read(ids), memory.peak())

    def open(self, key: str, kind: str = "team", **arguments: int) -> Opened:
        """Make a job: ``kind`` is a method of the side that gives a tick."""
        memory.forget_peak()
        held: AbstractContextManager[Tick] = getattr(self.side, kind)(**arguments)
        self._jobs[key] = (held, held.__enter__())
        return Opened()

    def tick(self, key: str) -> Ticked:
        """Time one tick, made after one that is not timed: the caches are this side's again."""
        job = self._jobs[key][1]
        job()
        started = time.perf_counter()
        job()
        return Ticked(time.perf_counter() - started)

    def close(self, key: str) -> Closed:
        """Let go of a job and of what its context takes in the other process."""
        held, _ = self._jobs.pop(key)
        peak = memory.peak()
        held.__exit__(None, None, None)
        return Closed(peak)

    def crowd(self, teams: int, workers: int, context: int, repeats: int) -> ManyTeams:
        """See `Shared.crowd`."""
        return self._ours().crowd(teams, workers, context, repeats)

    def score(self, most: int, at_once: int) -> Score:
        """See `scoring.score`."""
        from kvorum.bench.sides.scoring import score, text

        return score(self._ours().engine, text(), most, at_once)

    def _ours(self) -> Shared:
        from kvorum.bench.sides.kvorum import Shared

        assert isinstance(self.side, Shared)
        return self.side


VERBS = ("about", "machine", "read", "open", "tick", "close", "crowd", "score")


def main() -> None:
    """Load the side that the first argument tells (what `make` takes, as JSON), then serve until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def start() -> Loaded:
        before = memory.resident()
        server.append(Server(make(**json.loads(sys.argv[1]))))
        return Loaded(before, memory.resident())

    server: list[Server] = []
    if not _reply(replies, start):
        return
    for line in sys.stdin:
        request = json.loads(line)
        verb = request.pop("verb")
        assert verb in VERBS
        _reply(replies, partial(getattr(server[0], verb), **request))


def _reply(replies: IO[str], job: Callable[[], Reply]) -> bool:
    """Write what the job gives, or its error's sentence. Whether it went well."""
    error = None
    try:
        done = asdict(job())
    except (KvorumError, MemoryError, RuntimeError) as raised:
        error = (str(raised).strip() or type(raised).__name__).splitlines()[0]
    replies.write(json.dumps(done if error is None else {"error": error}) + "\n")
    replies.flush()
    return error is None


if __name__ == "__main__":
    main()
