"""The application: routes, errors, guard, and the life of what stands behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from kvorum.engine.engine import Engine
from kvorum.errors import KvorumError
from kvorum.serve import about_routes, block_routes, chat, completions, run_routes
from kvorum.serve.errors import ApiError, told
from kvorum.serve.guard import Guard
from kvorum.serve.service import Service
from kvorum.serve.settings import Settings
from kvorum.serve.streams import ClientGone

_ABOUT = (
    "Several LLM workers think at once over one KV cache. OpenAI-compatible completions; runs of programs with their "
    "events; blocks of the cache as shared memory."
)


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """The server for one engine, as an ASGI application. Raises BadRequest where the store cannot be used."""
    service = Service(engine, settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="kvorum", version=version("kvorum"), description=_ABOUT, lifespan=life, docs_url=None, redoc_url=None
    )
    app.state.service = service
    for router in (about_routes.router, chat.router, completions.router, run_routes.router, block_routes.router):
        app.include_router(router)
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(KvorumError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientGone, _gone)
    if settings.api_key is not None:
        app.openapi_schema = _with_key(app.openapi())
    return app


def _with_key(schema: dict[str, Any]) -> dict[str, Any]:
    schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"key": []}]
    return schema


async def _refused(request: Request, error: Exception) -> Response:
    found = told(error)
    return JSONResponse(found.body, found.status, headers=found.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))[:200]
    message = f"{place}: {first['msg']}." if place else f"{first['msg']}."
    return await _refused(request, ApiError(400, message, param=place or None))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    message = f"{request.method} {request.url.path[:200]}: {error.detail}." if code else f"{error.detail}."
    found = ApiError(error.status_code, message, code=code)
    return JSONResponse(found.body, found.status, headers=error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it
