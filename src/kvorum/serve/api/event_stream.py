"""Replies that last: server-sent events, and work that ends when its client goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from kvorum.jsontypes import Json
from kvorum.serve.error_forms import MESSAGES, refusal_body
from kvorum.serve.errors import ApiError, as_api_error, stopping
from kvorum.store.events import as_json

T = TypeVar("T")

QUIET = 15.0
"""Seconds after which a stream without news sends a comment, so that nobody takes it for dead."""
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
DONE = "data: [DONE]\n\n"
"""How a stream of OpenAI's ends."""


class ClientGone(ConnectionError):
    """The client went away before its reply was ready."""


async def unless_gone(receive: Receive, ended: asyncio.Event, work: Awaitable[T]) -> T:
    """What ``work`` returns. It is cancelled when the client goes away or the server is at its end (``Shared.ended``).

    Raises ClientGone; ApiError 503.
    """
    task = asyncio.ensure_future(work)
    gone, end = asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((task, gone, end), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise stopping() if end.done() else ClientGone("The client went away.")
    finally:
        for each in (task, gone, end):
            each.cancel()
        await asyncio.gather(task, gone, end, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events from ``source``, which is closed as soon as the client is gone.

    Where the server ends before it, the last event is an error that says so. Starlette's own would cancel the source at
    every step of its closing, and a run's end would be cut short.
    """

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[str, None]) -> None:
        super().__init__(source, headers={"X-Accel-Buffering": "no"})
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, scope["app"].state.server.shared.ended, self.stream_response(send))
        except ClientGone:
            pass
        except ApiError as error:  # the server ends
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            name = "event: error\n" if path.startswith(MESSAGES) else ""
            await send({"type": "http.response.body", "body": f"{name}{event(refusal_body(error, path))}".encode()})
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
    return f"data: {one_line(as_json(value))}\n\n"


def event_of(head: Mapping[str, Json], name: str) -> Callable[[str], str]:
    """Makes events that all have the fields of ``head``, and in the last one, ``name``, a list of one JSON text.

    As ``event`` would, in a third of its time: nearly all events of a stream differ in that alone.
    """
    begin = one_line(f"data: {as_json(head)[:-1]},{as_json(name)}:[")
    return lambda text: f"{begin}{one_line(text)}]}}\n\n"


def one_line(text: str) -> str:
    """JSON without the characters that some clients take for ends of lines, as Python's ``str.splitlines`` does."""
    return text if text.isascii() else text.translate(_LINE_ENDS)


async def opened(receive: Receive, ended: asyncio.Event, source: AsyncGenerator[str, None]) -> EventStream:
    """A stream whose first event is there: what is refused before that has a status of its own."""
    try:
        first = await unless_gone(receive, ended, anext(source))
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
