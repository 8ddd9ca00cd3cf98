"""The application: routes, page, errors, guard, description, and the life of what stands behind them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import version
from importlib.util import find_spec

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from kvorum.api import Engine
from kvorum.serve.api import (
    block_routes,
    chat_routes,
    completion_routes,
    embedding_routes,
    run_routes,
    server_routes,
    text_routes,
)
from kvorum.serve.api.anthropic import routes as message_routes
from kvorum.serve.api.decisions import routes as decision_routes
from kvorum.serve.api.documents import routes as document_routes
from kvorum.serve.api.responses import routes as response_routes
from kvorum.serve.error_forms import refusal
from kvorum.serve.errors import ApiError, as_api_error
from kvorum.serve.mcp_face.mount import MountedMcp
from kvorum.serve.model_source import ModelSource
from kvorum.serve.request_guard import RequestGuard
from kvorum.serve.server import Server
from kvorum.serve.settings import ServerSettings

_ABOUT = (
    "Several LLM workers think at once over one KV cache. OpenAI-compatible completions; runs of programs with their "
    "events; blocks of the cache as shared memory."
)
_ROUTERS = [
    server_routes.router,
    chat_routes.router,
    completion_routes.router,
    decision_routes.router,
    document_routes.router,
    response_routes.router,
    message_routes.router,
    run_routes.router,
    block_routes.router,
    text_routes.router,
    embedding_routes.router,
]


def create_app(models: Engine | Sequence[ModelSource], settings: ServerSettings) -> FastAPI:
    """The server for one engine, or for several models of which the first is loaded now, as an ASGI application.

    Raises BadRequest where the store cannot be used; what loading the first model raises.
    """
    server = Server([ModelSource.of(models)] if isinstance(models, Engine) else models, settings)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        async with server.running(), nullcontext() if mounted is None else mounted.running():
            yield

    app = FastAPI(
        title="kvorum",
        version=version("kvorum"),
        description=_ABOUT,
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": settings.telemetry, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.server = server
    for router in _ROUTERS:
        app.include_router(router)
    mounted = None if find_spec("mcp") is None else MountedMcp(app)  # the extra
    app.mount("/page", PageFiles(packages=[("kvorum.serve", "page"), ("kvorum", "examples")]))
    app.add_middleware(RequestGuard, server=server)  # which replies to all other errors
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    if settings.keys:
        schema = app.openapi()
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        schema["paths"]["/health"]["get"]["security"] = []  # open to all
    return app


class PageFiles(StaticFiles):
    """The page's files and the examples that it offers, without the Python beside them."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Nothing for what Python keeps there."""
        return ("", None) if "__" in path else super().lookup_path(path)


async def _invalid(request: Request, error: Exception) -> Response:
    return _reply(request, as_api_error(error))


async def _refused(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: a path or method that is not there, a body that it cannot read."""
    assert isinstance(error, HTTPException)
    message, code, headers = f"{request.method} {request.url.path[:200]}: {error.detail}.", "not_found", {}
    if error.status_code == 400:  # what the JSON parser gives up on
        message, code = "The body cannot be read as JSON: it is too deep, or has too long a number.", "invalid_json"
    elif error.status_code == 405:  # the router knows the methods of one route alone
        code, headers = "method_not_allowed", {"Allow": ", ".join(sorted(_methods(request)))}
    return _reply(request, ApiError(error.status_code, message, code=code, headers=headers))


def _reply(request: Request, error: ApiError) -> Response:
    return refusal(error, request.scope["path"].removeprefix(request.scope["root_path"]))


def _methods(request: Request) -> set[str]:
    """The methods that any route takes at this path; else it is a file of the page. What has GET has HEAD."""
    path = request.scope["path"].removeprefix(request.scope["root_path"])
    routes = [route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    found = {method for r in routes if r.path_regex.match(path) for method in r.methods or ()}
    found = found or {"GET"}
    return found | {"HEAD"} if "GET" in found else found
