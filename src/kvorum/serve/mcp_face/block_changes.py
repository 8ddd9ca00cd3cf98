"""News of blocks for MCP clients that listen: which there are, and which of them have grown.

Blocks are made over HTTP, too, so what is told comes from looking, for each listener with the key that it has sent: of
the blocks of others it hears nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.subscriptions import ResourcesListChanged, ResourceUpdated, ServerEvent
from pydantic import JsonValue

from kvorum.serve.mcp_face.api_calls import ApiCalls

_LOOK = 0.5
"""Seconds between looks for one listener."""


class BlockChanges:
    """The SDK's ``SubscriptionBus`` over the blocks that ``api`` lists."""

    def __init__(self, api: ApiCalls) -> None:
        self._api = api

    async def publish(self, event: ServerEvent) -> None:
        """Nothing is told by tools themselves: what they change is seen."""

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Tell ``listener`` of changes from now on, until what is returned is called."""
        task = asyncio.create_task(self._watch(listener))  # in the context of the request, which has the key

        def end() -> None:
            task.cancel()

        return end

    async def _watch(self, listener: Callable[[ServerEvent], None]) -> None:
        known: dict[str, JsonValue] | None = None
        while True:
            with suppress(ToolError):  # no server for now
                now = {str(block["id"]): block["tokens"] for block in await self._api.blocks()}
                if known is not None:
                    if known.keys() != now.keys():
                        listener(ResourcesListChanged())
                    for block in known.keys() & now.keys():
                        if known[block] != now[block]:
                            listener(ResourceUpdated(f"block://{block}"))
                known = now
            await asyncio.sleep(_LOOK)
