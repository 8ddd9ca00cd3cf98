"""Replies that last: server-sent events, and work that ends when its client goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from kvorum.jsontypes import Json
from kvorum.serve.errors import as_api_error
from kvorum.store.events import as_json

T = TypeVar("T")

QUIET = 15.0
"""Seconds after which a stream without news sends a comment, so that nobody takes it for dead."""
DONE = "data: [DONE]\n\n"
"""How a stream of OpenAI's ends."""


class ClientGone(ConnectionError):
    """The client went away before its reply was ready."""


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """What ``work`` returns; it is cancelled when the client goes away. Raises ClientGone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone("The client went away.")
    finally:
        for other in (task, gone):
            other.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events from ``source``, which is closed as soon as the client is gone.

    Starlette's own would cancel the source at every step of its closing, and a run's end would be cut short.
    """

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[str, None]) -> None:
        super().__init__(source, headers={"X-Accel-Buffering": "no"})
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientGone):
                await unless_gone(receive, self.stream_response(send))
        finally:
            await self._source.aclose()

    async def stream_response(self, send: Send) -> None:
        """Send all that the source says, and a comment where it is quiet for long."""
        latest = time.monotonic()

        async def write(message: Message) -> None:
            nonlocal latest
            latest = time.monotonic()
            await send(message)

        async def keep() -> None:
            while True:
                await asyncio.sleep(QUIET - (time.monotonic() - latest))
                if time.monotonic() - latest >= QUIET:
                    await write({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})

        keeper = asyncio.ensure_future(keep())
        try:
            await super().stream_response(write)
        finally:
            keeper.cancel()


def event(value: Json) -> str:
    """``value`` as a server-sent event without a name."""
    return f"data: {as_json(value)}\n\n"


async def opened(receive: Receive, source: AsyncGenerator[str, None]) -> EventStream:
    """A stream whose first event is there: what is refused before that has a status of its own."""
    try:
        first = await unless_gone(receive, anext(source))
    except BaseException:
        await source.aclose()
        raise
    return EventStream(_guarded(first, source))


async def _guarded(first: str, source: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """An error behind the first event becomes an event."""
    try:
        yield first
        async for text in source:
            yield text
    except Exception as error:
        yield event(as_api_error(error).body)
    finally:
        await source.aclose()
