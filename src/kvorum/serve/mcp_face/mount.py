"""The MCP server at ``/mcp`` of the application: streamable HTTP without sessions, so that a restart ends none.

Hosts, origins, keys and sizes are checked by the guard before anything reaches it. The SDK's import takes most of a
second, so it is not imported before somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvorum.serve.keys.keys import sent_key
from kvorum.serve.mcp_face.stated_version import disagreement

if TYPE_CHECKING:
    from anyio.abc import TaskStatus
    from mcp.server.mcpserver import MCPServer

PATH = "/mcp"


class MountedMcp:
    """MCP on ``app``, whose own API its tools call with the key of who calls them."""

    def __init__(self, app: FastAPI) -> None:
        self._app, self._first = app, asyncio.Lock()
        self._inner: ASGIApp | None = None
        app.router.routes.append(Route(PATH, self))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within it requests are taken."""
        async with anyio.create_task_group() as self._life:
            yield
            self._life.cancel_scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._first:
            if self._inner is None:
                self._inner = await self._life.start(self._answer)
        from kvorum.serve.mcp_face.api_calls import CALLER

        headers = Headers(scope=scope)
        key = sent_key(headers)
        CALLER.set(f"Bearer {key}" if key else None)
        first = await receive()  # the whole body: the guard has read it
        if refusal := disagreement(headers, first.get("body", b"")):
            await refusal(scope, receive, send)
            return
        told = [first]

        async def again() -> Message:
            return told.pop() if told else await receive()

        await self._inner(scope, again, send)

    async def _answer(self, *, task_status: TaskStatus[ASGIApp]) -> None:
        """Make what answers, and keep it alive."""
        server, inner = await asyncio.to_thread(_made, self._app)
        async with server.session_manager.run():
            task_status.started(inner)
            await anyio.sleep_forever()


def _made(app: FastAPI) -> tuple[MCPServer, ASGIApp]:
    import httpx2
    from mcp.server.transport_security import TransportSecuritySettings

    from kvorum.serve.mcp_face.api_calls import ApiCalls
    from kvorum.serve.mcp_face.server import mcp_server

    server = mcp_server(ApiCalls("http://localhost", httpx2.ASGITransport(app=app, raise_app_exceptions=False)))
    guarded = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # by the guard
    made = server.streamable_http_app(streamable_http_path=PATH, stateless_http=True, transport_security=guarded)
    return server, next(route.app for route in made.routes if isinstance(route, Route))
