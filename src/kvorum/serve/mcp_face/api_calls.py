"""Calls of the HTTP API on behalf of an MCP client: within the server's own process, or of one that runs elsewhere.

So an MCP client meets the same limits, keys and errors as any other, and whatever it does is there for all of them.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

import httpx2
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import JsonValue

from kvorum.jsontypes import JsonObject

CALLER: ContextVar[str | None] = ContextVar("caller", default=None)
"""The authorization that the MCP client has sent with the request that is being answered."""
_SECONDS = 3600.0
"""What a call may take; who asks for it may end it before."""


class NotThere(ToolError):
    """What was named is not there (404)."""


@dataclass(frozen=True, slots=True)
class ApiCalls:
    """``url`` is the server's; ``transport`` reaches it, by default the network. ``key`` is sent where the MCP client
    has sent none."""

    url: str
    transport: httpx2.AsyncBaseTransport | None = None
    key: str | None = None

    async def call(self, method: str, path: str, body: JsonObject | None = None) -> dict[str, JsonValue]:
        """The reply, an object.

        Raises:
            ToolError: the server refuses, in its own words, or is not there; NotThere for what it does not have.
        """
        key = CALLER.get() or (f"Bearer {self.key}" if self.key else None)
        headers = {"authorization": key} if key else {}
        try:
            async with httpx2.AsyncClient(
                base_url=self.url, transport=self.transport, timeout=_SECONDS, trust_env=False
            ) as client:
                reply = await client.request(method, path, json=body, headers=headers)
        except httpx2.HTTPError as error:
            raise ToolError(f"No kvorum server answers at {self.url}: start one with `kvorum serve`.") from error
        found: JsonValue = reply.json() if reply.content else {}
        if not isinstance(found, dict):
            raise ToolError(f"The server replied with {reply.status_code} and nothing that can be read.")
        if reply.status_code >= 400:
            told = found.get("error")
            kind = NotThere if reply.status_code == 404 else ToolError
            raise kind(str(told["message"]) if isinstance(told, dict) else f"status {reply.status_code}")
        return found

    async def blocks(self) -> list[dict[str, JsonValue]]:
        """All blocks that the caller may see, the newest first. Raises ToolError."""
        found = (await self.call("GET", "/v1/blocks")).get("data")
        return [block for block in found if isinstance(block, dict)] if isinstance(found, list) else []
