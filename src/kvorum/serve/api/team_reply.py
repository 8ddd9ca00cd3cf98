"""A program behind the OpenAI routes: its workers' lines are the reasoning, its answer the reply.

The run is one as under ``/v1/runs``: stored, to be watched and replayed. It is stopped when the client goes away.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from fastapi import Request
from starlette.responses import JSONResponse, Response

from kvorum.engine.budget import Ledger
from kvorum.jsontypes import Json, JsonObject
from kvorum.serve.api.event_stream import DONE, event, opened, unless_gone
from kvorum.serve.api.model_names import NamedModel
from kvorum.serve.api.plain_decode import reply_head, sampling_of, seed_of, usage_of
from kvorum.serve.api.run_limits import check_budget, check_params, check_workers
from kvorum.serve.errors import ApiError, conflict
from kvorum.serve.request_models import BudgetForm, ChatForm, CompletionBase
from kvorum.serve.run_spec import RunSpec
from kvorum.serve.service import Service
from kvorum.store.events import Event

_LINE = 400
"""Characters after which a line is sent though it has not ended."""


async def team_reply(
    service: Service,
    named: NamedModel,
    form: CompletionBase,
    problem: str,
    tokens: int | None,
    request: Request,
    client: str,
) -> Response:
    """Run the program and reply with its answer. ``tokens``: how many all workers may decode together."""
    run = await service.steer(service.runs.start, _spec(service, named, form, problem, tokens), client)
    if form.stream:
        return await opened(request, _stream(service, form, run))
    return await unless_gone(request, _whole(service, form, run))


def _spec(service: Service, named: NamedModel, form: CompletionBase, problem: str, tokens: int | None) -> RunSpec:
    assert named.program is not None
    limits, extra = service.settings.limits, form.kvorum
    if (form.n or 1) > 1:
        raise ApiError(400, "A program gives one reply.", param="n")
    if not problem.strip():
        raise ApiError(400, "The problem is empty; say what to solve.", param="messages")
    if extra.view or extra.into:
        raise ApiError(400, "View and into are for plain decoding.", param="kvorum")
    if tokens == 0:
        raise ApiError(400, "A reply has at least 1 token.", param="max_tokens")
    service.check_length(problem)
    budget = extra.budget
    if tokens is not None and (budget is None or budget.decoded is None):
        budget = (budget or BudgetForm()).model_copy(update={"decoded": tokens})
    return RunSpec(
        model=service.name,
        program=named.program.name,
        problem=problem,
        workers=check_workers(named.workers, limits, named.program),
        params=check_params(named.program, extra.params, limits),
        budget=check_budget(budget, limits),
        sampling=sampling_of(form, temperature=0.6, top_p=0.95),
        seed=seed_of(form),
    )


@dataclass(slots=True)
class _Lines:
    """The workers' text, line by line; ``open``: by worker what has not ended yet."""

    open: dict[str, str] = field(default_factory=dict)

    def take(self, event: Event) -> list[str]:
        """The lines that an event has finished."""
        ready = []
        for row in event["rows"] if event["event"] == "tick" else ():
            name = row["worker"]
            text = self.open.get(name, "") + row.get("given", "") + row["text"]
            *lines, rest = text.split("\n")
            if len(rest) > _LINE:
                lines, rest = [*lines, rest], ""
            ready += [f"{name} | {line}\n" for line in lines if line.strip()]
            self.open[name] = rest
        return ready

    def rest(self) -> list[str]:
        """The lines that have not ended, when the run is over."""
        return [f"{name} | {line}\n" for name, line in self.open.items() if line.strip()]


async def _whole(service: Service, form: CompletionBase, run: str) -> Response:
    chat = isinstance(form, ChatForm)
    lines = [line async for line in _reasoning(service, run)]
    end = await _end(service, run)
    choice: dict[str, Json] = {"index": 0, "finish_reason": end.finish, "logprobs": None}
    if chat:
        message = {"role": "assistant", "content": end.answer, "refusal": None, "reasoning_content": "".join(lines)}
        choice["message"] = message
    else:
        choice["text"] = end.answer
    return JSONResponse({**reply_head(form, run), "choices": [choice], "usage": end.usage})


async def _stream(service: Service, form: CompletionBase, run: str) -> AsyncGenerator[str, None]:
    chat = isinstance(form, ChatForm)
    head = reply_head(form, run)

    def piece(delta: JsonObject, finish: str | None = None) -> str:
        choice: dict[str, Json] = {"index": 0, "logprobs": None, "finish_reason": finish}
        choice |= {"delta": delta} if chat else {"text": delta.get("content", "")}
        return event({**head, "choices": [choice]})

    lines = _reasoning(service, run)
    try:
        yield piece({"role": "assistant", "content": ""})
        async for line in lines:
            if chat:
                yield piece({"reasoning_content": line})
        end = await _end(service, run)
        yield piece({"content": end.answer})
        yield piece({}, end.finish)
        if form.stream_options.include_usage:
            yield event({**head, "choices": [], "usage": end.usage})
        yield DONE
    finally:
        await lines.aclose()


async def _reasoning(service: Service, run: str) -> AsyncGenerator[str, None]:
    """The lines of a run's workers until it is over; it is stopped if nobody listens any more."""
    over, lines = False, _Lines()
    source = service.watch(run, -1)
    try:
        async for update in source:
            for line in lines.take(json.loads(update[2])) if update is not None else ():
                yield line
        over = True
    finally:
        await source.aclose()
        if not over:
            await service.stop_run(run)
    for line in lines.rest():
        yield line


@dataclass(frozen=True, slots=True)
class _End:
    answer: str
    finish: str
    usage: Json


async def _end(service: Service, run: str) -> _End:
    record = await service.record(run)
    if record is None or record.status == "stopped":
        raise conflict("The run was stopped.")
    if record.error is not None:
        raise ApiError(500, record.error["message"], kind="server_error", code="run_failed")
    ledger = Ledger(**record.ledger) if record.ledger else Ledger()
    usage = usage_of(ledger.prefill, ledger.decoded + ledger.latent, ledger, run=run)
    return _End(record.answer or "", "stop" if record.outcome == "answered" else "length", usage)
