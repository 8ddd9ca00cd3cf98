"""What the server is and has: models, programs, health, metrics, and the page."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, PlainTextResponse, Response

from kvorum.programs import DEFAULT, REGISTRY
from kvorum.serve.api.request_checks import Client, NamedModel, ServerDep, ServiceDep, find_model
from kvorum.serve.reply_models.base import errors
from kvorum.serve.reply_models.server import (
    DecisionModel,
    HealthReply,
    ModelList,
    ModelReply,
    ProgramList,
    ProgramReply,
)

router = APIRouter()


@router.get("/v1/models", tags=["OpenAI"], responses=errors())
async def models(service: ServerDep, client: Client) -> ModelList:
    """The model, and each program on it by name. Other numbers of workers are taken too."""
    if not client.may_ask(service.name):
        return ModelList(data=[], models=[])
    most = service.settings.limits.workers
    teams = [NamedModel(program, min(program.default_workers, most)) for program in REGISTRY.values()]
    day = time.strftime("%Y-%m-%d", time.gmtime(service.started))
    asked = DecisionModel(name=service.name, description="Answers typed questions by probabilities.", release_date=day)
    return ModelList(data=[named.reply(service) for named in (NamedModel(), *teams)], models=[asked])


@router.get("/v1/models/{name}", tags=["OpenAI"], responses=errors(404))
async def model(name: str, service: ServiceDep) -> ModelReply:
    """One of the model names, also with another number of workers."""
    return find_model(service, name).reply(service)


@router.get("/v1/programs", tags=["Runs"], responses=errors())
async def programs(service: ServerDep) -> ProgramList:
    """All programs with those of their parameters that can be given over the network."""
    known = [ProgramReply.model_validate(program.as_dict(local=False)) for program in REGISTRY.values()]
    return ProgramList(default=DEFAULT, data=known)


@router.get("/health", tags=["Server"], responses={503: {"model": HealthReply}})
async def health(service: ServerDep, response: Response) -> HealthReply:
    """How the server is; 503 where the engine's thread has ended."""
    alive, trouble, pool = service.thread.alive, service.runs.recorder.trouble, service.engine.pool
    if not alive:
        response.status_code = 503
    statuses = [live.status for live in list(service.runs.live.values())]
    return HealthReply(
        status="ok" if alive and trouble is None else "degraded",
        model=service.name,
        version=version("kvorum"),
        uptime=round(time.time() - service.started, 1),
        trouble=trouble,
        limits=asdict(service.settings.limits),
        pages={
            "total": pool.pages,
            "free": pool.unused,
            "prefixes": service.prefixes.pages,
            "blocks": service.blocks.pages,
            "reserved": service.admission.reserved,
            "page_size": pool.page_size,
        },
        store=_disk(service.settings.store),
        runs={status: statuses.count(status) for status in ("running", "queued", "paused")},
    )


def _disk(folder: Path) -> dict[str, int]:
    """Bytes of the disk on which runs, responses and blocks are kept; nothing where they are in a database alone."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return {}
    return {"total_bytes": disk.total, "free_bytes": disk.free}


@router.get(
    "/metrics",
    tags=["Server"],
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format"}, **errors()},
)
async def metrics(service: ServerDep) -> Response:
    """Queue, ticks, tokens, pages and latencies for Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def index() -> Response:
    """The page to start, watch and replay runs; its other files are under ``/page``."""
    return FileResponse(Path(__file__).parents[1] / "page" / "index.html")
