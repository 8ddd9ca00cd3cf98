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
from functools import partial
from typing import IO, Any, cast

from kvorum.bench import memory
from kvorum.bench.side import Side, Tick
from kvorum.bench.sides import make
from kvorum.errors import KvorumError


class Server:
    """Does what requests ask of one side. Jobs (ticks that can be timed) are open under keys, several at a time."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._jobs: dict[str, tuple[AbstractContextManager[Tick], Tick]] = {}

    def about(self) -> dict[str, Any]:
        """What kvorum says of its engine."""
        return cast(dict[str, Any], cast(Any, self.side).about())

    def machine(self) -> dict[str, Any]:
        """The machine, and its memory's bandwidth in bytes per second."""
        from kvorum.bench.machine import about, bandwidth

        return about() | {"bandwidth": bandwidth()}

    def read(self, ids: Sequence[int]) -> dict[str, Any]:
        """``seconds``, and ``peak``: the most bytes that the process held meanwhile."""
        memory.forget_peak()
        return {"seconds": self.side.read(ids), "peak": memory.peak()}

    def open(self, key: str, kind: str = "team", **arguments: Any) -> dict[str, Any]:
        """Make a job: ``kind`` is a method of the side that gives a tick."""
        memory.forget_peak()
        held = getattr(self.side, kind)(**arguments)
        self._jobs[key] = (held, held.__enter__())
        return {}

    def tick(self, key: str) -> dict[str, Any]:
        """``seconds`` of one tick, made after one that is not timed: the caches are this side's again."""
        job = self._jobs[key][1]
        job()
        started = time.perf_counter()
        job()
        return {"seconds": time.perf_counter() - started}

    def close(self, key: str) -> dict[str, Any]:
        """Free a job. ``peak``: bytes held at most since it, or another, was opened."""
        held, _ = self._jobs.pop(key)
        peak = memory.peak()
        held.__exit__(None, None, None)
        return {"peak": peak}

    def crowd(self, **arguments: Any) -> dict[str, Any]:
        """See `Shared.crowd`."""
        return cast(dict[str, Any], cast(Any, self.side).crowd(**arguments))

    def score(self, most: int, at_once: int) -> dict[str, Any]:
        """See `quality.score`."""
        from kvorum.bench.quality import score, text

        return score(cast(Any, self.side).engine, text(), most, at_once)


VERBS = ("about", "machine", "read", "open", "tick", "close", "crowd", "score")


def main() -> None:
    """Load the side that the first argument tells (what `make` takes, as JSON), then serve until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def bare() -> dict[str, Any]:
        before = memory.resident()
        server.append(Server(make(**json.loads(sys.argv[1]))))
        return {"before": before, "loaded": memory.resident()}

    server: list[Server] = []
    if not _reply(replies, bare):
        return
    for line in sys.stdin:
        request = json.loads(line)
        verb = request.pop("verb")
        assert verb in VERBS
        _reply(replies, partial(getattr(server[0], verb), **request))


def _reply(replies: IO[str], job: Callable[[], dict[str, Any]]) -> bool:
    """Write what the job gives, or its error's sentence. Whether it went well."""
    try:
        said: dict[str, Any] = job()
    except (KvorumError, MemoryError, RuntimeError) as error:
        said = {"error": (str(error).strip() or type(error).__name__).splitlines()[0]}
    replies.write(json.dumps(said) + "\n")
    replies.flush()
    return "error" not in said


if __name__ == "__main__":
    main()
