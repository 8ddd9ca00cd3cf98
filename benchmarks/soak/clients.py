"""Clients that cost little: they share the two cores with the server. One connection a request; what comes back is
counted as it comes and parsed no further.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from server import MODEL, Server

PROMPT = "Tell me, in plain words and at some length, how a river finds its way to the sea, part {}."


class Stream(asyncio.Protocol):
    """A request whose reply is a stream of events. ``mark``: what each event that counts has in it."""

    def __init__(self, request: bytes, mark: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._request, self._mark, self._rest = request, mark, b""
        self.began, self.first, self.count = time.monotonic(), 0.0, 0
        self.head = b""
        self.begun: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.head = self.head or data[:64]
        data = self._rest + data
        self.count += data.count(self._mark)
        self._rest = data[1 - len(self._mark) :]
        if self.count and not self.first:
            self.first = time.monotonic() - self.began
            self.begun.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.begun, self.done):
            if not future.done():
                future.set_result(None)

    def leave(self) -> None:
        """Go away in the middle."""
        assert self._transport is not None
        self._transport.abort()

    @property
    def ok(self) -> bool:
        """Whether something was said and all was well."""
        return b" 200 " in self.head and self.count > 0


async def stream(server: Server, method: str, path: str, body: Any, mark: str) -> Stream:
    """Send a request whose reply is a stream."""
    sent = b"" if body is None else json.dumps(body).encode()
    host, port = server.address
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\nContent-Length: {len(sent)}\r\n"
    request = f"{head}Content-Type: application/json\r\n\r\n".encode() + sent
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: Stream(request, mark.encode()), host, port)
    return made


async def chat(server: Server, n: int, tokens: int) -> Stream:
    """Chat number ``n``, of at most so many tokens."""
    body = {
        "model": MODEL, "stream": True, "max_tokens": tokens, "temperature": 0.8, "seed": n,
        "messages": [{"role": "user", "content": PROMPT.format(n)}],
    }  # fmt: skip
    return await stream(server, "POST", "/v1/chat/completions", body, '"delta":{"content":"')


def _long(n: int) -> dict[str, Any]:
    """A schema whose every text is longer than the replies of a load, so that none ends before the others."""
    place = {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 24}, "kind": {"enum": ["spring", "bend", f"mouth {n % 5}"]},
        "km": {"type": "number", "minimum": 0, "maximum": 9999}, "deep": {"type": ["integer", "null"]},
    }, "required": ["name", "kind", "km"], "additionalProperties": False}  # fmt: skip
    return {
        "type": "object",
        "properties": {"places": {"type": "array", "items": place, "minItems": 40}},
        "required": ["places"],
        "additionalProperties": False,
    }


async def agent(server: Server, n: int, tokens: int) -> Stream:
    """As ``chat``, in a form: even numbers under a schema, odd ones with two tools of which one must be called."""
    form: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "river", "schema": _long(n), "strict": True}}
    asked: dict[str, Any] = {"response_format": form}
    if n % 2:
        tools = [{"name": name, "description": "Draws it.", "parameters": _long(n)} for name in ("draw", "paint")]
        asked = {"tools": [{"type": "function", "function": tool} for tool in tools], "tool_choice": "required"}
    body = {
        "model": MODEL, "stream": True, "max_tokens": tokens, "temperature": 0.8, "seed": n, **asked,
        "messages": [{"role": "user", "content": PROMPT.format(n)}],
    }  # fmt: skip
    return await stream(
        server, "POST", "/v1/chat/completions", body, '"arguments":"' if n % 2 else '"delta":{"content":"'
    )


async def team(server: Server, n: int, ticks: int) -> tuple[str, Stream]:
    """A team of four as a run, and its events."""
    body = {"problem": "What is 17 * 23?", "model": f"{MODEL}:hogwild-4", "budget": {"ticks": ticks}, "seed": n}
    run = await asyncio.to_thread(server.run, body)
    return run, await stream(server, "GET", f"/v1/runs/{run}/events", None, "event: tick")
