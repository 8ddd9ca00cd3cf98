"""The HTTP server: uvicorn, which drains before it stops, and sends no chunks to who speaks HTTP/1.0."""

from __future__ import annotations

import asyncio

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kvorum.serve.server import Server
from kvorum.serve.settings import Limits, ServerSettings
from kvorum.serve.slow_clients import NO_REQUEST, REFUSED, TOO_LARGE, Patience, refused_head

_LAST_WORDS = 2
"""Seconds that replies which were ended have for saying so; who does not read it by then is cut off."""
_LONGEST_LINE = 2**16
_HEAD_BYTES = 2**16
"""What the headers of a request may have together; they are held before anybody has looked at a key."""


class HttpServer(uvicorn.Server):
    """Serves ``app`` until a signal: then it is drained (``Server.drain``) and stops. A second Ctrl-C hurries it."""

    def __init__(self, app: FastAPI, settings: ServerSettings) -> None:
        self._served: Server = app.state.server

        class Connection(_Connection):
            limits = settings.limits

        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=Connection,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_LAST_WORDS,
                timeout_keep_alive=30,
                ws="none",
            )
        )

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def main_loop(self) -> None:
        """Serve until the server is to stop; clients are still heard while it is drained."""
        await super().main_loop()
        await self._served.drain(lambda: self.force_exit)


class _Watched(asyncio.Protocol):
    """A connection whose client is waited for only so long; to stand before uvicorn's protocol among the bases."""

    limits: Limits
    _patience: Patience

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._patience.over()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read."""
        self._patience.full()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._patience.read()
        super().resume_writing()


class _Connection(_Watched, HttpToolsProtocol):
    """A client's connection. One of HTTP/1.0 is handed over to h11, for this one sends all streams in chunks."""

    _line: bytes | None = b""
    """What has come of the first line; None once it is known."""
    _head = 0
    """Bytes of the headers of the request whose head comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One more, if there may be; its first request has its time from now on."""
        super().connection_made(transport)
        self._patience = Patience(transport, self.limits, self._busy)
        if len(self.connections) > self.limits.connections:
            transport.write(refused_head(REFUSED))
            transport.close()
        else:
            self._patience.head_begins()

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_message_begin(self) -> None:
        """A request has begun."""
        self._patience.head_begins()
        self._head = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header more, of which there may be so much."""
        self._head += len(name) + len(value) + 4
        if self._head > _HEAD_BYTES:
            raise ValueError("The headers are too large.")  # to the parser, whose caller refuses what it gives up on
        super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request of HTTP, or has too large a head, and end the connection."""
        large = self._head > _HEAD_BYTES
        self.transport.write(refused_head(TOO_LARGE if large else NO_REQUEST))
        self.transport.close()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._patience.head_ends()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._line is None:
            super().data_received(data)
            return
        data = self._line + data
        line, end, _ = data.partition(b"\n")
        if not end and len(line) < _LONGEST_LINE:
            self._line = data
            return
        self._line = None
        if not line.rstrip().endswith(b" HTTP/1.0"):
            super().data_received(data)
            return
        self.connections.discard(self)
        self._patience.over()
        other = _OldConnection(self.config, self.server_state, self.app_state, self.loop)
        other.limits = self.limits
        other.connection_made(self.transport)
        self.transport.set_protocol(other)
        other.data_received(data)


class _OldConnection(_Watched, H11Protocol):
    """One of HTTP/1.0, which has a single request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It has begun already, and so has the time of its request."""
        super().connection_made(transport)
        self._patience = Patience(transport, self.limits, lambda: self.cycle is not None)
        self._patience.head_begins()
