"""Slow clients: how much later another client's first token comes while one stops reading, connects or sends slowly."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import statistics
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from server import MODEL, Server, report

from clients import chat

TIMES, TURNS = 7, 3
"""First tokens in a row, and how often they are taken with and without, in turns, for the machine's pace changes."""
HEAD = "POST /v1/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


def slow(folder: Path) -> None:
    """Each kind of slow client beside first tokens of short chats, all different."""
    with Server(folder / "store") as server:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))  # here; the server keeps what it has
        asyncio.run(_all(server))


Beside = Callable[[Server], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _nobody(server: Server) -> AsyncIterator[None]:
    yield


async def _all(server: Server) -> None:
    kinds: dict[str, tuple[Beside, Beside]] = {
        "a client that stops reading a reply, over nobody": (_nobody, partial(_replies, count=1, read=False)),
        "one that stops reading four, over one that reads them": (
            partial(_replies, count=4, read=True), partial(_replies, count=4, read=False),
        ),
        "1,000 connections that say nothing, over nobody": (_nobody, _connected),
        "20 bodies of a byte a second, over nobody": (_nobody, _bytewise),
    }  # fmt: skip
    number = 0
    for name, (usual, disturbed) in kinds.items():
        before, beside = list[float](), list[float]()
        for _ in range(TURNS):
            for there, found in ((usual, before), (disturbed, beside)):
                async with there(server):
                    found += await _first_tokens(server, number, TIMES)
                number += TIMES
        ratio = statistics.median(beside) / statistics.median(before)
        words = f"{1000 * statistics.median(beside):.0f} over {1000 * statistics.median(before):.0f} ms, {ratio:.2f}"
        report(f"beside {name}", words, "<= 2", ratio <= 2)


async def _first_tokens(server: Server, number: int, count: int) -> list[float]:
    found = []
    for at in range(number, number + count):
        one = await chat(server, at, 2)
        await one.done
        assert one.ok
        found.append(one.first)
    return found


def _line(server: Server) -> socket.socket:
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(server.address)
    return line


@asynccontextmanager
async def _replies(server: Server, *, count: int, read: bool) -> AsyncIterator[None]:
    """Long streams of one client, which it reads or does not."""
    body = f'{{"model": "{MODEL}", "prompt": "Once", "max_tokens": 1000, "stream": true, "logit_bias": {{"0": -100}}}}'

    async def take(lines: list[socket.socket]) -> None:
        for _ in range(count):
            lines.append(_line(server))
            lines[-1].sendall((HEAD.format("localhost", len(body)) + body).encode())
            lines[-1].setblocking(False)
        while read:
            for line in lines:
                with contextlib.suppress(BlockingIOError):
                    line.recv(65536)
            await asyncio.sleep(0.01)

    async with _beside(take):
        yield
    await asyncio.sleep(0.5)


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[None]:
    """A thousand connections, opened anew as often as they are closed or a second is over."""

    async def again(lines: list[socket.socket]) -> None:
        while True:
            for line in lines:
                line.close()
            lines.clear()
            for _ in range(1000):
                with contextlib.suppress(OSError):
                    lines.append(_line(server))
                await asyncio.sleep(0)  # others' events between two of them
            await asyncio.sleep(1)

    async with _beside(again):
        yield


@asynccontextmanager
async def _bytewise(server: Server) -> AsyncIterator[None]:
    """Twenty requests whose bodies come a byte a second; ended ones begin anew."""

    async def again(lines: list[socket.socket]) -> None:
        while True:
            while len(lines) < 20:
                lines.append(_line(server))
                lines[-1].sendall(HEAD.format("localhost", 5000).encode())
            for line in [*lines]:
                try:
                    line.sendall(b" ")
                except OSError:
                    lines.remove(line)
                    line.close()
            await asyncio.sleep(1)

    async with _beside(again):
        yield


@asynccontextmanager
async def _beside(work: Callable[[list[socket.socket]], Coroutine[None, None, None]]) -> AsyncIterator[None]:
    """Within it ``work`` goes on, with connections that it puts into a list; afterwards they are closed."""
    lines = list[socket.socket]()
    task = asyncio.create_task(work(lines))
    await asyncio.sleep(1)
    try:
        yield
    finally:
        task.cancel()
        for line in lines:
            line.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task
