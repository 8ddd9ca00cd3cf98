"""Replies that last: server-sent events, and work that ends when its client goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kvorum.jsontypes import Json
from kvorum.serve.errors import as_api_error
from kvorum.store.runs import as_json

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

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Starlette's headers but for the length, which is not known."""
        super().init_headers(headers)
        self.raw_headers = [(key, value) for key, value in self.raw_headers if key != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pump = asyncio.ensure_future(self._pump(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = pump.done()
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)
            await self._source.aclose()
        if finished:
            pump.result()  # raises what the pump has raised

    async def _pump(self, send: Send) -> None:
        latest = time.monotonic()

        async def write(text: str) -> None:
            nonlocal latest
            latest = time.monotonic()
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        async def keep() -> None:
            while True:
                await asyncio.sleep(QUIET - (time.monotonic() - latest))
                if time.monotonic() - latest >= QUIET:
                    await write(": still here\n\n")

        keeper = asyncio.ensure_future(keep())
        try:
            if self._first:
                await write(self._first)
            async for text in self._source:
                await write(text)
        finally:
            keeper.cancel()
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class ClientGone(ConnectionError):
    """The client went away before its reply was ready."""


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
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


DONE = "data: [DONE]\n\n"
"""How a stream of OpenAI's ends."""


def event(value: Json) -> str:
    """``value`` as a server-sent event without a name."""
    return f"data: {as_json(value)}\n\n"


async def opened(request: Request, source: AsyncGenerator[str, None]) -> EventStream:
    """A stream whose first event is there: what is refused before that has a status of its own."""
    try:
        first = await unless_gone(request, anext(source))
    except BaseException:
        await source.aclose()
        raise
    return EventStream(_guarded(source), first)


async def _guarded(source: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """An error behind the first event becomes an event."""
    try:
        async for text in source:
            yield text
    except Exception as error:
        yield event(as_api_error(error).body)
    finally:
        await source.aclose()
