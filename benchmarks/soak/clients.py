"""Clients that cost little: they share the two cores with the server. One connection a request; what comes back is
counted as it comes and parsed no further.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Protocol, TypeVar

from server import MODEL, Server

PROMPT = "Tell me, in plain words and at some length, how a river finds its way to the sea, part {}."


class Listening(Protocol):
    """What has an address."""

    @property
    def address(self) -> tuple[str, int]: ...


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


S = TypeVar("S", bound=Stream)


async def send(kind: type[S], server: Listening, method: str, path: str, body: Any, mark: str, **headers: str) -> S:
    """Send a request whose reply is a stream, which is taken as ``kind`` does. In names of headers _ stands for -."""
    sent = b"" if body is None else json.dumps(body).encode()
    host, port = server.address
    given = {"Host": f"{host}:{port}", "Connection": "close", "Content-Length": str(len(sent)), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in given.items())]
    request = "\r\n".join([*lines, "Content-Type: application/json\r\n\r\n"]).encode() + sent
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: kind(request, mark.encode()), host, port)
    return made


async def stream(server: Listening, method: str, path: str, body: Any, mark: str) -> Stream:
    """Send a request whose reply is a stream."""
    return await send(Stream, server, method, path, body, mark)


CHAT, SAID = "/v1/chat/completions", '"delta":{"content":"'
"""Where chats are sent, and what each event of their replies has in it."""


def chat_body(n: int, tokens: int) -> dict[str, Any]:
    """What chat number ``n`` asks, for at most so many tokens."""
    return {
        "model": MODEL, "stream": True, "max_tokens": tokens, "temperature": 0.8, "seed": n,
        "messages": [{"role": "user", "content": PROMPT.format(n)}],
    }  # fmt: skip


async def chat(server: Listening, n: int, tokens: int) -> Stream:
    """Chat number ``n``, of at most so many tokens."""
    return await stream(server, "POST", CHAT, chat_body(n, tokens), SAID)


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
    return await stream(server, "POST", CHAT, body, '"arguments":"' if n % 2 else SAID)


def team_body(n: int, ticks: int) -> dict[str, Any]:
    """A team of four, as a run."""
    return {"problem": "What is 17 * 23?", "model": f"{MODEL}:hogwild-4", "budget": {"ticks": ticks}, "seed": n}


async def team(server: Server, n: int, ticks: int) -> tuple[str, Stream]:
    """A team of four as a run, and its events."""
    run = await asyncio.to_thread(server.run, team_body(n, ticks))
    return run, await stream(server, "GET", f"/v1/runs/{run}/events", None, "event: tick")
