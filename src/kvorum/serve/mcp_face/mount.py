"""The MCP server at ``/mcp`` of the application: streamable HTTP without sessions, so that a restart ends none.

Hosts, origins, keys and sizes are checked by the guard before anything reaches it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kvorum.serve.keys.keys import sent_key
from kvorum.serve.mcp_face.api_calls import CALLER, ApiCalls
from kvorum.serve.mcp_face.server import mcp_server

PATH = "/mcp"


class MountedMcp:
    """MCP on ``app``, whose own API its tools call."""

    def __init__(self, app: FastAPI) -> None:
        inner = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        self._server = mcp_server(ApiCalls("http://localhost", inner))
        made = self._server.streamable_http_app(
            streamable_http_path=PATH,
            stateless_http=True,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the guard's
        )
        for route in made.routes:
            if isinstance(route, Route):
                route.app = _AsCaller(route.app)
                app.router.routes.append(route)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within it requests are taken."""
        async with self._server.session_manager.run():
            yield


class _AsCaller:
    """Tools call the API with the key of who calls them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = sent_key(Headers(scope=scope))
        CALLER.set(f"Bearer {key}" if key else None)
        await self._app(scope, receive, send)
