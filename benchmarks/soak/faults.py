"""Faults: clients that go away, and a process that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from pathlib import Path
from typing import Any

from server import MODEL, Server, report

from clients import chat


def gone(folder: Path) -> None:
    """Half of 64 streaming clients go away."""

    async def half(server: Server) -> tuple[float, int]:
        sent = [await chat(server, n, 150) for n in range(64)]
        await asyncio.gather(*(one.begun for one in sent))
        await asyncio.sleep(2)
        for one in sent[::2]:
            one.leave()
        left = time.monotonic()
        free = await asyncio.to_thread(freed, server, left)
        await asyncio.gather(*(one.done for one in sent))
        return free, sum(one.ok for one in sent[1::2])

    def freed(server: Server, left: float) -> float:
        while server.metrics()["kvorum_requests_running"] > 32:
            time.sleep(0.01)
        return time.monotonic() - left

    with Server(folder / "store") as server:
        seconds, rest = asyncio.run(half(server))
        report("32 of 64 clients gone: their places and pages free after", f"{seconds:.2f} s", "<= 1 s", seconds <= 1)
        report("the others complete", f"{rest} of 32", "32", rest == 32)
        time.sleep(1)
        kept = server.unaccounted()
        report("pages not accounted for afterwards", str(kept), "0", kept == 0)


def kills(folder: Path, count: int) -> None:
    """SIGKILL at random moments while four runs go on under the load of four chats.

    A life of the process is at most as long as the four take undisturbed, without that load.
    """
    choose = random.Random(0)
    server = Server(folder / "store")
    bodies = [
        {"problem": "What is 17 * 23?", "model": f"{MODEL}:{program}", "budget": {"ticks": 48}, "seed": seed}
        for seed, program in enumerate(("hogwild-3", "vote-2", "solo-1", "roleplay-2"))
    ]
    begun = time.monotonic()
    runs = [server.run(body) for body in bodies]
    for run in runs:
        server.wait(run)
    expected, pace = [server.tokens(run) for run in runs], time.monotonic() - begun
    done = equal = killed = lost = 0
    while killed < count:
        runs = [server.run(body) for body in bodies]
        finished: set[str] = set()
        while len(finished) < len(runs) and killed < count:
            with _chats(server):
                time.sleep(choose.uniform(0, pace))
                finished |= {run for run in runs if server.status(run) == "finished"}
                server.end()
            killed += 1
            server = Server(folder / "store")
            lost += sum(server.status(run) != "finished" for run in finished)
            print(f"     {killed} kills", flush=True)
        for body, run, tokens in zip(bodies, runs, expected, strict=True):
            status = server.wait(run)
            done += 1
            same = status == "finished" and server.tokens(run) == tokens
            equal += same
            if not same:
                print(f"     other tokens: {body['model']} {run} {status}", flush=True)
    report("kills with SIGKILL under load", str(killed), str(count), killed >= count)
    report("runs that end with the tokens of an undisturbed one", f"{equal} of {done}", "all", equal == done)
    report("finished runs lost", str(lost), "0", lost == 0)
    server.end()


@contextlib.contextmanager
def _chats(server: Server) -> Any:
    """Load from four clients on a thread, until the server is gone."""

    async def forever(n: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                n += 4
                one = await chat(server, n, 24)
                await one.done
                if not one.ok:
                    return

    async def four() -> None:
        await asyncio.gather(*(forever(n) for n in range(4)))

    thread = threading.Thread(target=lambda: asyncio.run(four()))
    thread.start()
    try:
        yield
    finally:
        thread.join()
