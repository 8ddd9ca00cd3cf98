"""What the server is and has: models, programs, health, metrics, and the page."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from kvorum.programs import REGISTRY
from kvorum.serve.api.model_names import about_program, choose, names, spelled
from kvorum.serve.api.reply_models import HealthReply, ModelList, ModelReply, ProgramList, errors
from kvorum.serve.errors import missing
from kvorum.serve.service import Service

router = APIRouter()

_KINDS = {
    "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml", "png": "image/png", "ico": "image/x-icon", "woff2": "font/woff2",
    "json": "application/json", "webmanifest": "application/manifest+json",
}  # fmt: skip


def _model(service: Service, name: str, program: str | None, workers: int) -> dict[str, Any]:
    return {
        "id": name, "object": "model", "created": int(service.started), "owned_by": "kvorum",
        "kvorum": {"program": program, "workers": workers},
    }  # fmt: skip


@router.get("/v1/models", tags=["OpenAI"], response_model=ModelList, responses=errors())
async def models(request: Request) -> Any:
    """The model, and each program on it by name. Other numbers of workers are taken too."""
    service: Service = request.app.state.service
    found = [
        _model(service, spelled(choice), choice.program.name if choice.program else None, choice.workers)
        for choice in names(service.name, service.settings.limits)
    ]
    return {"object": "list", "data": found}


@router.get("/v1/models/{name}", tags=["OpenAI"], response_model=ModelReply, responses=errors(404))
async def model(name: str, request: Request) -> Any:
    """One of them."""
    service: Service = request.app.state.service
    choice = choose(name, service.name, service.settings.limits)
    return _model(service, spelled(choice), choice.program.name if choice.program else None, choice.workers)


@router.get("/v1/programs", tags=["Runs"], response_model=ProgramList, responses=errors())
async def programs() -> Any:
    """All programs with their parameters."""
    return {"object": "list", "data": [about_program(program) for program in REGISTRY.values()]}


@router.head("/health", include_in_schema=False)
@router.get("/health", tags=["Server"], response_model=HealthReply, responses={503: {"model": HealthReply}})
async def health(request: Request, response: Response) -> Any:
    """How the server is; 503 where the engine's thread has ended."""
    service: Service = request.app.state.service
    if not service.host.alive:
        response.status_code = 503
    return service.about()


@router.get(
    "/metrics",
    tags=["Server"],
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format"}, **errors()},
)
async def metrics(request: Request) -> Response:
    """Queue, ticks, tokens, pages and latencies for Prometheus."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.head("/", include_in_schema=False)
@router.get("/", include_in_schema=False)
async def index() -> Response:
    """The page."""
    return _file("index.html")


@router.head("/page/{name}", include_in_schema=False)
@router.get("/page/{name}", include_in_schema=False)
async def page(name: str) -> Response:
    """A file of the page."""
    return _file(name)


def _file(name: str) -> Response:
    """A file that lies in the package's folder ``page``; the name is looked up among those there."""
    found = {entry.name: entry for entry in files("kvorum.serve").joinpath("page").iterdir() if entry.is_file()}
    kind = _KINDS.get(name.rpartition(".")[2])
    if name not in found or kind is None:
        raise missing(f"There is no page {name[:80]!r}.")
    return Response(found[name].read_bytes(), headers={"Content-Type": kind, "Cache-Control": "no-cache"})
