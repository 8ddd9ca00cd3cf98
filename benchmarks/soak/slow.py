"""Slow clients: how much later another client's first token comes while one stops reading, connects or sends slowly."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import statistics
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from server import MODEL, Server, report

from clients import chat

TIMES, TURNS = 7, 3
"""First tokens in a row, and how often they are taken with and without, in turns: the machine's pace changes."""
HEAD = "POST /v1/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


def slow(folder: Path) -> None:
    """Each kind of slow client beside first tokens of short chats, all different."""
    with Server(folder / "store") as server:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))  # here; the server keeps what it has
        asyncio.run(_all(server))


async def _all(server: Server) -> None:
    kinds: dict[str, Callable[[Server], AbstractAsyncContextManager[None]]] = {
        "a client that stops reading four replies": _unread,
        "1,000 connections that are opened and say nothing": _connected,
        "20 bodies of which a byte a second comes": _bytewise,
    }
    number = 0
    for name, disturbed in kinds.items():
        quiet, beside = list[float](), list[float]()
        for _ in range(TURNS):
            quiet += await _first_tokens(server, number, TIMES)
            async with disturbed(server):
                beside += await _first_tokens(server, number + TIMES, TIMES)
            number += 2 * TIMES
        ratio = statistics.median(beside) / statistics.median(quiet)
        words = f"{1000 * statistics.median(quiet):.0f} and {1000 * statistics.median(beside):.0f} ms"
        report(f"first token alone and beside {name}", words)
        report(f"ratio of the medians of {len(beside)}", f"{ratio:.2f}", "<= 2", ratio <= 2)


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
async def _unread(server: Server) -> AsyncIterator[None]:
    """Four long streams of one client, of which it reads nothing."""
    body = f'{{"model": "{MODEL}", "prompt": "Once", "max_tokens": 1000, "stream": true, "logit_bias": {{"0": -100}}}}'
    lines = [_line(server) for _ in range(4)]
    for line in lines:
        line.sendall((HEAD.format("localhost", len(body)) + body).encode())
    await asyncio.sleep(1)  # until all of them are at it
    try:
        yield
    finally:
        for line in lines:
            line.close()
        await asyncio.sleep(0.5)


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[None]:
    """A thousand connections, opened anew as often as they are closed or a second is over."""

    async def again() -> None:
        lines = list[socket.socket]()
        try:
            while True:
                for line in lines:
                    line.close()
                lines.clear()
                for _ in range(1000):
                    with contextlib.suppress(OSError):
                        lines.append(_line(server))
                    await asyncio.sleep(0)  # others' events between two of them
                await asyncio.sleep(1)
        finally:
            for line in lines:
                line.close()

    async with _beside(again()):
        yield


@asynccontextmanager
async def _bytewise(server: Server) -> AsyncIterator[None]:
    """Twenty requests whose bodies come a byte a second; ended ones begin anew."""

    async def again() -> None:
        lines = list[socket.socket]()
        try:
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
        finally:
            for line in lines:
                line.close()

    async with _beside(again()):
        yield


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    await asyncio.sleep(1)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
