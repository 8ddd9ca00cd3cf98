"""The application: routes, errors, guard, and the life of what stands behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from kvorum.api import Engine
from kvorum.errors import KvorumError
from kvorum.serve.api import block_routes, chat_routes, completion_routes, run_routes, server_routes
from kvorum.serve.api.event_stream import ClientGone
from kvorum.serve.api.openapi import describe
from kvorum.serve.api.validation import reason
from kvorum.serve.errors import ApiError, as_api_error
from kvorum.serve.guard import Guard
from kvorum.serve.service import Service
from kvorum.serve.settings import Settings

_ABOUT = (
    "Several LLM workers think at once over one KV cache. OpenAI-compatible completions; runs of programs with their "
    "events; blocks of the cache as shared memory."
)

_ROUTERS = [routes.router for routes in (server_routes, chat_routes, completion_routes, run_routes, block_routes)]


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """The server for one engine, as an ASGI application. Raises BadRequest where the store cannot be used."""
    service = Service(engine, settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="kvorum", version=version("kvorum"), description=_ABOUT, lifespan=life, docs_url=None, redoc_url=None
    )
    app.state.service = service
    for router in _ROUTERS:
        app.include_router(router)
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(KvorumError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientGone, _gone)
    describe(app, key=settings.api_key is not None)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    return _reply(as_api_error(error))


def _reply(error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(error.body, error.status, headers={**(headers or {}), **error.headers})


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    message, place = reason(error.errors())
    return _reply(ApiError(400, message, param=place))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    message = f"{request.method} {request.url.path[:200]}: {error.detail}." if code else f"{error.detail}."
    headers = dict(error.headers or {})
    if error.status_code == 400:  # what the JSON parser gives up on
        message, code = "The body cannot be read as JSON: it is too deep, or has too long a number.", "invalid_json"
    elif error.status_code == 405:  # the router knows those of one route alone
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return _reply(ApiError(error.status_code, message, code=code), headers)


def _methods(request: Request) -> set[str]:
    """The methods that any route takes at this path."""
    routes = [route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return {method for r in routes if r.path_regex.match(request.url.path) for method in r.methods or ()}


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it
