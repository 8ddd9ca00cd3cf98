"""``/v1/runs``: start a run, watch it, steer it, fork it, take its trace along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from kvorum.errors import BadRequest
from kvorum.jsontypes import JsonObject
from kvorum.programs import DEFAULT, REGISTRY
from kvorum.runs.steering import Command
from kvorum.sampling.sampling import Sampling
from kvorum.serve.api.event_stream import EventStream, event, one_line
from kvorum.serve.api.request_checks import (
    AllowedDep,
    Client,
    ServerDep,
    ServiceDep,
    StoredRun,
    check_budget,
    check_workers,
    checked_spec,
    find_model,
    find_program,
    find_run,
    hold_model,
)
from kvorum.serve.errors import ApiError, as_api_error, busy, conflict, within
from kvorum.serve.keys.caller import Caller
from kvorum.serve.reply_models.base import Accepted, Deleted, errors
from kvorum.serve.reply_models.runs import RunList, RunReply, RunSpec
from kvorum.serve.request_models.runs import CommandForm, ForkForm, RunForm, StepForm
from kvorum.serve.server import Server
from kvorum.store.runs import Record, StoreError
from kvorum.store.traces import until

router = APIRouter(tags=["Runs"])


class TraceFile(Response):
    """A trace: one JSON object a line."""

    media_type = "application/x-ndjson"


def about_run(server: Server, record: Record) -> RunReply:
    """A run as the API shows it."""
    shown = {**asdict(record), **record.spec, "created": int(record.created)}
    held = server.runs.held_why(record.id)
    if held is not None:
        shown |= {"status": "paused", "error": record.error or held}
    return RunReply.model_validate(shown)


async def _shown(server: Server, run: str, caller: Caller) -> RunReply:
    return about_run(server, await find_run(server.shared.store, run, caller))


@router.post("/v1/runs", status_code=201, responses=errors(404, 408, 413, 415, 429))
async def start(form: RunForm, server: ServerDep, service: ServiceDep, client: Client) -> RunReply:
    """Start a run. It is stored with its trace and goes on after a restart of the server."""
    named = find_model(service, service.name if form.model is None else form.model)
    program = named.program or REGISTRY[DEFAULT]
    if form.program is not None:
        program = find_program(form.program)
    workers = named.workers if program is named.program else None
    team = workers if form.workers is None else form.workers
    sampling = Sampling(**form.sampling.model_dump())
    spec = await checked_spec(
        service,
        program,
        form.problem,
        team,
        form,
        sampling=sampling,
        seed=form.seed,
        thinking=form.thinking,
        place="problem",
    )
    if form.attention:
        try:
            service.engine.check_tap(form.attention)
        except BadRequest as error:
            raise as_api_error(error, "attention") from error
        spec = spec.model_copy(update={"attention": form.attention})
    made = await service.thread.call(service.runs.start, spec, client, paused=form.paused)
    return await _shown(server, made, client)


@router.get("/v1/runs", responses=errors(404))
async def listed(
    server: AllowedDep,
    client: Client,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(max_length=80)] = None,
) -> RunList:
    """Runs, the newest first; those before (older than) run ``before``."""
    if before is not None:
        await find_run(server.shared.store, before, client)
    found = await asyncio.to_thread(server.shared.store.newest, limit + 1, before, client.owner)
    return RunList(data=[about_run(server, record) for record in found[:limit]], has_more=len(found) > limit)


@router.get("/v1/runs/{run}", responses=errors(404))
async def get(run: StoredRun, server: ServerDep) -> RunReply:
    """A run as it is now, without its events."""
    return about_run(server, run)


@router.delete("/v1/runs/{run}", responses=errors(404))
async def delete(run: StoredRun, server: ServerDep) -> Deleted:
    """Forget a run with its trace; it is stopped first."""
    await server.shared.thread.call(server.runs.of(run).delete, run.id)
    return Deleted(id=run.id)


@router.post("/v1/runs/{run}/pause", responses=errors(404, 409))
async def pause(run: StoredRun, server: ServerDep, client: Client) -> RunReply:
    """Hold it at the end of the tick that is under way."""
    await server.shared.thread.call(server.runs.of(run).pause, run.id)
    return await _shown(server, run.id, client)


@router.post("/v1/runs/{run}/resume", responses=errors(404, 409))
async def resume(run: StoredRun, server: ServerDep, client: Client) -> RunReply:
    """Let a paused run go on from where it was held."""
    await server.shared.thread.call(server.runs.of(run).go_on, run.id)
    return await _shown(server, run.id, client)


@router.post("/v1/runs/{run}/stop", responses=errors(404, 409))
async def stop(run: StoredRun, server: ServerDep, client: Client) -> RunReply:
    """End it; its trace is kept."""
    await server.shared.thread.call(server.runs.of(run).stop, run.id)
    return await _shown(server, run.id, client)


@router.post("/v1/runs/{run}/step", responses=errors(404, 408, 409, 413, 415))
async def step(run: StoredRun, server: ServerDep, client: Client, form: StepForm | None = None) -> RunReply:
    """Pause it, and let it do so many ticks."""
    await server.shared.thread.call(server.runs.of(run).step, run.id, 1 if form is None else form.ticks)
    return await _shown(server, run.id, client)


@router.post("/v1/runs/{run}/commands", status_code=202, responses=errors(404, 408, 409, 413, 415))
async def command(run: StoredRun, form: CommandForm, server: ServerDep) -> Accepted:
    """Ask something of it: say (to a worker), share (with all), leave, join, answer (now).

    Approve or refuse a call that waits for a person's word, by the number in its note as the text.
    """
    if form.kind in ("say", "share", "approve", "refuse") and not form.text.strip():
        raise ApiError(400, f"{form.kind} needs a text.", param="text")
    if form.kind in ("say", "leave", "join") and not form.worker.strip():
        raise ApiError(400, f"{form.kind} needs a worker.", param="worker")
    if form.kind == "join":
        check_workers([form.worker], server.settings.limits)
    within(len(form.text), 4 * server.settings.limits.prompt_tokens, "characters", "text")
    await server.shared.thread.call(server.runs.of(run).command, run.id, Command(form.kind, form.worker, form.text))
    return Accepted()


@router.post("/v1/runs/{run}/fork", status_code=201, responses=errors(404, 408, 409, 413, 415, 429))
async def fork(run: StoredRun, form: ForkForm, request: Request, server: ServerDep, client: Client) -> RunReply:
    """A new run that is the same up to, and without, a tick, and its own from there on."""
    if form.tick > run.ticks:
        raise conflict(f"The run has {run.ticks} ticks so far; fork it at one of them.")
    events = until(await asyncio.to_thread(server.runs.events, run.id), form.tick)
    if not events:
        raise conflict("The run has not begun yet.")
    spec = RunSpec.model_validate(run.spec)
    find_program(spec.program)
    if form.seed is not None:
        spec = spec.model_copy(update={"reseed": [*spec.reseed, (form.tick, form.seed)]})
    if form.budget is not None:
        spec = spec.model_copy(update={"budget": check_budget(form.budget, server.settings.limits)})
    if spec.budget.ticks is not None and spec.budget.ticks <= form.tick:
        raise ApiError(400, "The budget is spent before that tick; give a larger one.", param="budget")
    begin = next(event.copy() for event in events if event["event"] == "start")
    begin["budget"] = spec.budget.as_dict()
    if spec.reseed:
        begin["reseed"] = [list(pair) for pair in spec.reseed]
    begun = [begin, *events[1:]]
    parent: JsonObject = {"run": run.id, "tick": form.tick}
    runs = (await hold_model(request, client, server.models.named(spec.model))).runs
    made = await server.shared.thread.call(runs.start, spec, client, paused=form.paused, parent=parent, events=begun)
    return await _shown(server, made, client)


@router.get(
    "/v1/runs/{run}/trace",
    response_class=TraceFile,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "One event a line"}, **errors(404)},
)
async def trace(run: StoredRun, server: ServerDep) -> Response:
    """The trace as a file: what ``kvorum replay FILE`` takes."""
    stored = await asyncio.to_thread(server.shared.store.events, run.id)
    text = "".join(f"{one_line(body)}\n" for _, _, body in stored)
    return TraceFile(text, headers={"Content-Disposition": f'attachment; filename="{run.id}.jsonl"'})


@router.get(
    "/v1/runs/{run}/events",
    status_code=200,
    response_class=EventStream,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"},
        204: {"description": "The run is over and all of it was read"},
        **errors(404, 429),
    },
)
async def events(
    run: StoredRun,
    server: ServerDep,
    client: Client,
    after: Annotated[int | None, Query(ge=-1, lt=2**62)] = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """A run's events as they are stored, from the first or behind ``Last-Event-ID``; and its status as it changes."""
    last = after if after is not None else -1
    if after is None and last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        last = int(last_event_id)
    over = server.runs.live(run.id) is None and not server.runs.elsewhere(run)
    if over and last >= run.events - 1 and last >= 0:
        return Response(status_code=204)
    if server.shared.streams >= server.settings.limits.streams:
        raise busy("Too many event streams are open.", 5)
    return EventStream(_events(server, run.id, last, client))


async def _events(server: Server, run: str, last: int, client: Caller) -> AsyncGenerator[str, None]:
    async def status() -> str:
        shown = await server.runs.when_it_answers(run, lambda: _shown(server, run, client))
        return f"event: status\n{event(shown.model_dump())}"

    server.shared.streams += 1
    source = server.runs.watch(run, last)
    try:
        yield f"retry: 1000\n{await status()}"
        async for update in source:
            if update is None:
                yield await status()
            else:
                number, kind, body = update
                yield f"id: {number}\nevent: {kind}\ndata: {one_line(body)}\n\n"
        yield await status()
    except (ApiError, StoreError) as error:  # the run was deleted, or nothing can be read now
        yield event(as_api_error(error).body)
    finally:
        server.shared.streams -= 1
        await source.aclose()
