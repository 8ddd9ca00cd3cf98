"""``/v1/runs``: start a run, watch it, steer it, fork it, take its trace along."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import ConfigDict, Field, StrictBool, StrictInt
from starlette.responses import Response

from kvorum.runs.steering import Command
from kvorum.sampling.sampling import Sampling
from kvorum.serve.api.event_stream import EventStream
from kvorum.serve.api.model_names import check_budget, check_params, check_workers, choose, plain_budget, program_of
from kvorum.serve.api.plain_decode import client_of
from kvorum.serve.api.reply_models import Accepted, Deleted, RunList, RunReply, errors
from kvorum.serve.api.request_models import BudgetForm, Form, Number, Seed, Words
from kvorum.serve.errors import ApiError, busy, conflict, missing
from kvorum.serve.service import Service
from kvorum.store.runs import Record, as_json
from kvorum.store.traces import until

router = APIRouter(tags=["Runs"])

RunId = Annotated[str, Path(max_length=80)]


class TraceFile(Response):
    """One event a line."""

    media_type = "application/x-ndjson"


class Strict(Form):
    """A body without unknown fields."""

    model_config = ConfigDict(extra="forbid")


class SamplingForm(Strict):
    """How workers pick their tokens."""

    temperature: Number = Field(0.6, ge=0, le=100)
    top_p: Number = Field(0.95, gt=0, le=1)
    top_k: StrictInt = Field(0, ge=0, lt=2**31)
    min_p: Number = Field(0.0, ge=0, le=1)


class RunForm(Strict):
    """A new run. ``program`` and ``workers`` may stand in the model's name, as in NAME:hogwild-4."""

    problem: Words = Field(min_length=1)
    model: str | None = Field(None, max_length=300)
    program: str | None = Field(None, max_length=80)
    workers: StrictInt | Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    params: dict[str, Any] = Field(default_factory=dict, max_length=64)
    budget: BudgetForm | None = None
    sampling: SamplingForm = Field(default_factory=lambda: SamplingForm())
    seed: Seed = 0
    paused: StrictBool = False


class ForkForm(Strict):
    """Where a run is forked, and what is other from there on."""

    tick: StrictInt = Field(ge=0, lt=2**31)
    seed: Seed | None = None
    budget: BudgetForm | None = None
    paused: StrictBool = False


class StepForm(Strict):
    """How far to go."""

    ticks: StrictInt = Field(1, ge=1, le=10000)


class CommandForm(Strict):
    """What is asked of a run."""

    kind: Literal["say", "share", "leave", "join", "answer"]
    worker: str = Field("", max_length=40)
    text: str = Field("", max_length=20000)


def about_run(service: Service, record: Record) -> dict[str, Any]:
    """A run as the API tells it."""
    spec = record.spec
    held = service.runs.held.get(record.id)
    if held is None and service.runs.trouble is not None and record.id in service.runs.live:
        held = {"message": service.runs.trouble, "type": "store_unavailable"}
    return {
        "id": record.id, "object": "run", "created": int(record.created), "model": spec["model"],
        "program": spec["program"], "problem": spec["problem"], "workers": spec["workers"], "params": spec["params"],
        "budget": spec["budget"], "sampling": spec["sampling"], "seed": spec["seed"],
        "status": "paused" if held is not None else record.status, "ticks": record.ticks, "events": record.events,
        "ledger": record.ledger, "outcome": record.outcome, "answer": record.answer, "spent": record.spent,
        "error": record.error or held, "parent": record.parent,
    }  # fmt: skip


async def _record(service: Service, run: str) -> Record:
    record = await service.record(run)
    if record is None:
        raise missing(f"There is no run {run!r}.")
    return record


async def _shown(service: Service, run: str) -> dict[str, Any]:
    return about_run(service, await _record(service, run))


@router.post("/v1/runs", status_code=201, response_model=RunReply, responses=errors(404, 408, 413, 415, 429))
async def start(form: RunForm, request: Request) -> Any:
    """Start a run. It is stored with its trace and goes on after a restart of the server."""
    service: Service = request.app.state.service
    limits = service.settings.limits
    choice = choose(form.model if form.model is not None else service.name, service.name, limits)
    program = choice.program or program_of("hogwild")
    if form.program is not None:
        program = program_of(form.program)
    workers: int | list[str] = choice.workers if program is choice.program else program.default_workers
    names = check_workers(workers if form.workers is None else form.workers, limits)
    if not form.problem.strip():
        raise ApiError(400, "The problem is empty; say what to solve.", param="problem")
    given = form.budget.model_dump(exclude_none=True) if form.budget is not None else None
    sampling = form.sampling.model_dump()
    Sampling(**sampling)
    spec = service.spec(
        program, form.problem, names, check_params(program, form.params), plain_budget(check_budget(given, limits)),
        sampling, form.seed % 2**63,
    )  # fmt: skip
    return await _shown(service, await service.begin(spec, client_of(request), paused=form.paused))


@router.get("/v1/runs", response_model=RunList, responses=errors(404))
async def listed(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(max_length=80)] = None,
) -> Any:
    """Runs, the newest first; those before (older than) run ``before``."""
    service: Service = request.app.state.service
    if before is not None:
        await _record(service, before)
    found = await service.read(service.store.newest, limit + 1, before)
    return {"object": "list", "data": [about_run(service, r) for r in found[:limit]], "has_more": len(found) > limit}


@router.get("/v1/runs/{run}", response_model=RunReply, responses=errors(404))
async def get(run: RunId, request: Request) -> Any:
    """A run as it is now."""
    return await _shown(request.app.state.service, run)


@router.delete("/v1/runs/{run}", response_model=Deleted, responses=errors(404))
async def delete(run: RunId, request: Request) -> Any:
    """Forget a run with its trace; it is stopped first."""
    service: Service = request.app.state.service
    await _record(service, run)
    await service.stop_run(run)
    await service.forget(run)
    return {"id": run, "deleted": True}


@router.post("/v1/runs/{run}/pause", response_model=RunReply, responses=errors(404, 409))
async def pause(run: RunId, request: Request) -> Any:
    """Hold it at the end of the tick that is under way."""
    service: Service = request.app.state.service
    await _record(service, run)
    await service.steer(service.runs.pause(run))
    return await _shown(service, run)


@router.post("/v1/runs/{run}/resume", response_model=RunReply, responses=errors(404, 409))
async def resume(run: RunId, request: Request) -> Any:
    """Let a paused run go on."""
    service: Service = request.app.state.service
    await _record(service, run)
    await service.steer(service.runs.go_on(run))
    return await _shown(service, run)


@router.post("/v1/runs/{run}/stop", response_model=RunReply, responses=errors(404, 409))
async def stop(run: RunId, request: Request) -> Any:
    """End it; its trace is kept."""
    service: Service = request.app.state.service
    await _record(service, run)
    await service.steer(service.runs.stop(run))
    return await _shown(service, run)


@router.post("/v1/runs/{run}/step", response_model=RunReply, responses=errors(404, 408, 409, 413, 415))
async def step(run: RunId, request: Request, form: StepForm | None = None) -> Any:
    """Pause it, and let it do so many ticks."""
    service: Service = request.app.state.service
    await _record(service, run)
    await service.steer(service.runs.step(run, 1 if form is None else form.ticks))
    return await _shown(service, run)


@router.post(
    "/v1/runs/{run}/commands", status_code=202, response_model=Accepted, responses=errors(404, 408, 409, 413, 415)
)
async def command(run: RunId, form: CommandForm, request: Request) -> Any:
    """Ask something of it: say (to a worker), share (with all), leave, join, answer (now)."""
    service: Service = request.app.state.service
    await _record(service, run)
    if form.kind in ("say", "share") and not form.text.strip():
        raise ApiError(400, f"{form.kind} needs a text.", param="text")
    if form.kind in ("say", "leave", "join") and not form.worker.strip():
        raise ApiError(400, f"{form.kind} needs a worker.", param="worker")
    if form.kind == "join":
        check_workers([form.worker], service.settings.limits)
    if len(form.text) > 4 * service.settings.limits.prompt:
        raise ApiError(400, "The text is too long for this server.", param="text")
    await service.steer(service.runs.command(run, Command(form.kind, form.worker, form.text)))
    return {"accepted": True}


@router.post(
    "/v1/runs/{run}/fork", status_code=201, response_model=RunReply, responses=errors(404, 408, 409, 413, 415, 429)
)
async def fork(run: RunId, form: ForkForm, request: Request) -> Any:
    """A new run that is the same up to, and without, a tick, and its own from there on."""
    service: Service = request.app.state.service
    record = await _record(service, run)
    if form.tick > record.ticks:
        raise conflict(f"The run has {record.ticks} ticks so far; fork it at one of them.")
    stored = await service.read(service.store.events, run)
    events = until([json.loads(body) for _, _, body in stored], form.tick)
    if not events:
        raise conflict("The run has not begun yet.")
    spec = dict(record.spec)
    if form.seed is not None:
        spec["reseed"] = [*spec["reseed"], [form.tick, form.seed % 2**63]]
    if form.budget is not None:
        spec["budget"] = plain_budget(check_budget(form.budget.model_dump(exclude_none=True), service.settings.limits))
    if spec["budget"]["ticks"] <= form.tick:
        raise ApiError(400, "The budget is spent before that tick; give a larger one.", param="budget")
    begin = {key: value for key, value in events[0].items() if key != "reseed"}
    begin |= {"budget": spec["budget"]} | ({"reseed": spec["reseed"]} if spec["reseed"] else {})
    made = await service.begin(
        spec,
        client_of(request),
        paused=form.paused,
        parent={"run": run, "tick": form.tick},
        events=[begin, *events[1:]],
    )
    return await _shown(service, made)


@router.get(
    "/v1/runs/{run}/trace",
    response_class=TraceFile,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "One event a line"}, **errors(404)},
)
async def trace(run: RunId, request: Request) -> Response:
    """The trace as a file: what ``kvorum replay FILE`` takes."""
    service: Service = request.app.state.service
    await _record(service, run)
    stored = await service.read(service.store.events, run)
    text = "".join(f"{body}\n" for _, _, body in stored)
    return TraceFile(
        text,
        headers={"Content-Disposition": f'attachment; filename="{run}.jsonl"'},
    )


@router.get(
    "/v1/runs/{run}/events",
    status_code=200,
    response_class=EventStream,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"},
        204: {"description": "Nothing is left to tell"},
        **errors(404, 429),
    },
)
async def events(
    run: RunId,
    request: Request,
    after: Annotated[int | None, Query(ge=-1, lt=2**62)] = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """A run's events as they are stored, from the first or behind ``Last-Event-ID``; and its status as it changes."""
    service: Service = request.app.state.service
    record = await _record(service, run)
    last = after if after is not None else -1
    if after is None and last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        last = int(last_event_id)
    over = run not in service.runs.live
    if over and last >= record.events - 1 and last >= 0:
        return Response(status_code=204)
    if service.streams >= service.settings.limits.streams:
        raise busy("Too many event streams are open.", 5)
    return EventStream(_events(service, run, last))


async def _events(service: Service, run: str, last: int) -> AsyncGenerator[str, None]:
    service.streams += 1
    source = service.watch(run, last)
    try:
        yield f"retry: 1000\nevent: status\ndata: {as_json(await _shown(service, run))}\n\n"
        async for told in source:
            if told is None:
                yield f"event: status\ndata: {as_json(await _shown(service, run))}\n\n"
            else:
                yield f"id: {told[0]}\nevent: {told[1]}\ndata: {told[2]}\n\n"
        yield f"event: status\ndata: {as_json(await _shown(service, run))}\n\n"
    except ApiError:
        return  # the run was deleted, or the reader too slow: it may come again
    finally:
        service.streams -= 1
        await source.aclose()
