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
from kvorum.serve.api.request_checks import Client, NamedModel, ServerDep, base_model, named_model
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
async def models(server: ServerDep, client: Client) -> ModelList:
    """The models, loaded or not, and each program on them by name. Other numbers of workers are taken too."""
    most, day = server.settings.limits.workers, time.strftime("%Y-%m-%d", time.gmtime(server.shared.started))
    teams = [NamedModel(program, min(program.default_workers, most)) for program in REGISTRY.values()]
    names = [name for name in server.models.sources if client.may_ask(name)]
    about = "Answers typed questions by probabilities."
    return ModelList(
        data=[named.reply(server, name) for name in names for named in (NamedModel(), *teams)],
        models=[DecisionModel(name=name, description=about, release_date=day) for name in names],
    )


@router.get("/v1/models/{name}", tags=["OpenAI"], responses=errors(404))
async def model(name: str, server: ServerDep, client: Client) -> ModelReply:
    """One of the model names, also with another number of workers."""
    base = base_model(server.models, name)
    client.check_model(base)
    return named_model(base, name).reply(server, base)


@router.get("/v1/programs", tags=["Runs"], responses=errors())
async def programs(server: ServerDep) -> ProgramList:
    """All programs with those of their parameters that can be given over the network."""
    known = [ProgramReply.model_validate(program.as_dict(local=False)) for program in REGISTRY.values()]
    return ProgramList(default=DEFAULT, data=known)


@router.get("/health", tags=["Server"], responses={503: {"model": HealthReply}})
async def health(server: ServerDep, response: Response) -> HealthReply:
    """How the server is; 503 where the engines' thread or the processes of a model have ended or stand still."""
    alive, models = server.shared.thread.alive, server.models
    loaded = list(models.loaded.values())
    lost = models.lost
    if not alive or lost is not None:
        response.status_code = 503
    trouble = lost or models.trouble
    statuses = [live.status for service in loaded for live in list(service.runs.live.values())]
    return HealthReply(
        status="ok" if alive and trouble is None else "degraded",
        model=models.first,
        models={name: models.status(name) for name in models.sources},
        version=version("kvorum"),
        uptime=round(time.time() - server.shared.started, 1),
        trouble=trouble,
        limits=asdict(server.settings.limits),
        pages={
            "total": sum(service.engine.pool.pages for service in loaded),
            "free": sum(service.engine.pool.unused for service in loaded),
            "prefixes": sum(service.prefixes.pages for service in loaded),
            "blocks": sum(service.blocks.pages for service in loaded),
            "reserved": sum(service.admission.reserved for service in loaded),
            "page_size": max((service.engine.pool.page_size for service in loaded), default=0),
        },
        store=_disk(server.settings.store),
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
async def metrics(server: ServerDep) -> Response:
    """Queue, ticks, tokens, pages and latencies for Prometheus."""
    return Response(await server.shared.metrics.of_all(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def index() -> Response:
    """The page to start, watch and replay runs; its other files are under ``/page``."""
    return FileResponse(Path(__file__).parents[1] / "page" / "index.html")
