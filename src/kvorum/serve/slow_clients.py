"""What a connection may take its time for: a client that dawdles over a request's head, or stops reading, is cut off.

Bodies have their time in ``request_guard``. What waits to be read costs a socket and its buffers and no more: tokens
are computed at the same pace, and their places are given back at the end of the reply whether or not it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from kvorum.serve.errors import ApiError
from kvorum.serve.settings import Limits
from kvorum.store.events import as_json

REFUSED = ApiError(
    503,
    "Too many connections are open; try again later.",
    kind="server_error",
    code="server_busy",
    headers={"Retry-After": "5"},
)
"""What a connection beyond the limit hears."""
NO_REQUEST = ApiError(400, "What was sent is no request of HTTP.", code="invalid_http")
TOO_LARGE = ApiError(431, "The request's headers are larger than the 64 KiB that this server takes.", code="too_large")


def refused_head(error: ApiError) -> bytes:
    """A refusal as it is sent where there is no request that the application could reply to; the last on its line."""
    body = as_json(error.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    lines = [f"{name}: {value}" for name, value in {**headers, **error.headers}.items()]
    return "\r\n".join([f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", *lines, "", ""]).encode() + body


class Patience:
    """The two clocks of one connection. ``busy``: whether a reply is under way on it, which a slow head may not cut."""

    def __init__(self, transport: asyncio.Transport, limits: Limits, busy: Callable[[], bool]) -> None:
        self._transport, self._limits, self._busy = transport, limits, busy
        self._loop = asyncio.get_running_loop()
        self._head: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def head_begins(self) -> None:
        """A request's head is to come, within so many seconds."""
        if self._head is None:
            self._head = self._loop.call_later(self._limits.head_seconds, self._too_slow)

    def head_ends(self) -> None:
        """It has come."""
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def full(self) -> None:
        """What was written is not read: the buffer is full."""
        if self._reading is None:
            self._reading = self._loop.call_later(self._limits.unread_seconds, self._transport.abort)

    def read(self) -> None:
        """It is being read."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def over(self) -> None:
        """The connection has ended."""
        self.head_ends()
        self.read()

    def _too_slow(self) -> None:
        self._head = None
        if self._busy():
            self.head_begins()
        else:
            self._transport.abort()
