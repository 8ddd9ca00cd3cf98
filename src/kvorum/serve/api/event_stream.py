"""Replies that last: server-sent events, and work that ends when its client goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

QUIET = 15.0
"""Seconds after which a stream without news sends a comment, so that nobody takes it for dead."""


class EventStream(Response):
    """Server-sent events from ``source``, which is closed as soon as the client is gone."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[str, None], first: str = "") -> None:
        self._source, self._first = source, first
        self.background = None
        self.status_code = 200
        self.init_headers({"X-Accel-Buffering": "no"})

    def init_headers(self, headers: Any = None) -> None:
        """No length: it is not known."""
        super().init_headers(headers)
        self.raw_headers = [(key, value) for key, value in self.raw_headers if key != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pump = asyncio.ensure_future(self._pump(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)
            await self._source.aclose()
        if pump.done() and not pump.cancelled() and pump.exception() is not None:
            raise pump.exception()  # type: ignore[misc]

    async def _pump(self, send: Send) -> None:
        said = time.monotonic()

        async def say(text: str) -> None:
            nonlocal said
            said = time.monotonic()
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        async def keep() -> None:
            while True:
                await asyncio.sleep(QUIET - (time.monotonic() - said))
                if time.monotonic() - said >= QUIET:
                    await say(": still here\n\n")

        keeper = asyncio.ensure_future(keep())
        try:
            if self._first:
                await say(self._first)
            async for text in self._source:
                await say(text)
        finally:
            keeper.cancel()
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class ClientGone(ConnectionError):
    """The client went away before its reply was ready."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns; it is cancelled when the client goes away. Raises ClientGone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone("The client went away.")
    finally:
        for other in (task, gone):
            other.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
