"""What Ray Serve costs: a request, and a streamed token, through its proxy and beside it, in turns.

The same requests go to a replica and to `kvorum serve` alone, each with one thread, so that both compute the same; the
difference of their times is Ray's. Processor time is that of all processes of either, which others on the machine
change less.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from kept_replies import Kept
from ray_replicas import SESSIONS, replicas
from server import MODEL, Server, report

from clients import Listening, send

TURNS, REQUESTS, TOKENS, MANY = 9, 20, 128, 16
MARK = '"choices":['


@dataclass
class Side:
    """Who is asked. ``processes``: all of its processes."""

    at: Listening
    http: httpx.Client
    processes: Callable[[], list[psutil.Process]]
    requests: list[float] = field(default_factory=list)
    """Milliseconds of each ``GET /v1/models``, over one connection."""
    tokens: list[float] = field(default_factory=list)
    """Milliseconds between two tokens of a stream that is alone, in the mean of each stream."""
    many: list[float] = field(default_factory=list)
    """Milliseconds for each token of MANY streams at once."""
    processor: list[float] = field(default_factory=list)
    """Milliseconds of processors for each of those."""

    def seconds(self) -> float:
        """Of processors, so far."""
        spent = 0.0
        for one in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                spent += sum(one.cpu_times()[:2])
        return spent

    def turn(self, n: int) -> None:
        """Each measurement once. ``n``: of the turn, for seeds."""
        for _ in range(REQUESTS):
            begun = time.perf_counter()
            assert self.http.get("/v1/models", headers={"x-session-id": SESSIONS[0]}).status_code == 200
            self.requests.append(1000 * (time.perf_counter() - begun))
        ((_, spent),) = asyncio.run(self._streams(1, n))
        self.tokens.append(1000 * spent / (TOKENS - 1))
        used, begun = self.seconds(), time.perf_counter()
        told = asyncio.run(self._streams(MANY, n))
        count = sum(count for count, _ in told)
        self.many.append(1000 * (time.perf_counter() - begun) / count)
        self.processor.append(1000 * (self.seconds() - used) / count)

    async def _streams(self, count: int, n: int) -> list[tuple[int, float]]:
        """So many at once; of each its tokens, and the seconds from the first of them to the last."""

        async def one(at: int) -> tuple[int, float]:
            body = {"model": MODEL, "prompt": [4000 + 100 * n + at, 500], "max_tokens": TOKENS, "stream": True}
            body |= {"seed": at, "logit_bias": {"0": -100, "2": -100}}  # the model's two ends
            reply = await send(Kept, self.at, "POST", "/v1/completions", body, MARK, x_session_id=SESSIONS[0])
            await reply.done
            end = time.monotonic()
            assert reply.whole
            assert any('"finish_reason":"length"' in each.get("data", "") for each in reply.events())
            return TOKENS, end - reply.began - reply.first

        return await asyncio.gather(*(one(at) for at in range(count)))


def overhead(folder: Path) -> None:
    """Both, in turns; the medians of what one is over the other."""
    os.environ["OMP_NUM_THREADS"] = "1"
    own = psutil.Process()
    with Server(folder / "store") as alone, replicas(MODEL, kv_tokens="32768") as up:
        up.homes()
        single = psutil.Process(alone.process.pid)

        def of_ray() -> list[psutil.Process]:
            return [one for one in own.children(recursive=True) if one != single]

        sides = [Side(alone, alone.http, lambda: [single]), Side(up, up.http, of_ray)]
        for n in range(TURNS + 1):
            for side in sides[:: 1 if n % 2 else -1]:
                side.turn(n)
            if n == 0:  # to warm up
                for side in sides:
                    for figures in (side.requests, side.tokens, side.many, side.processor):
                        figures.clear()
            print(f"     turn {n} of {TURNS}", flush=True)
        _told(*sides)


def _told(alone: Side, ray: Side) -> None:
    names = {
        "GET /v1/models": "requests", "a streamed token, one stream": "tokens",
        f"a streamed token, {MANY} streams": "many", "processor time of such a token": "processor",
    }  # fmt: skip
    for words, name in names.items():
        mine, theirs = getattr(alone, name), getattr(ray, name)
        extra = statistics.median(other - one for one, other in zip(mine, theirs, strict=True))
        report(f"{words}: Ray's part, median of {len(mine)} pairs", f"{extra:.2f} ms")
        both = statistics.median(mine), statistics.median(theirs)
        print("     {:.2f} ms alone, {:.2f} ms through Ray".format(*both), flush=True)
