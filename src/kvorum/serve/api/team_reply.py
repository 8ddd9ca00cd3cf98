"""A program behind the OpenAI routes: its workers' lines are the reasoning, its answer the reply.

The run is one as under ``/v1/runs``: stored, to be watched and replayed. It is stopped when the client goes away.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from kvorum.engine.budget import Ledger
from kvorum.serve.api.event_stream import unless_gone
from kvorum.serve.api.model_names import Choice, check_budget, check_params, check_workers, plain_budget
from kvorum.serve.api.plain_decode import client_of, event, opened, stamp, usage_of
from kvorum.serve.api.request_models import Common
from kvorum.serve.errors import ApiError, conflict
from kvorum.serve.service import Service, fresh_seed

_LINE = 400
"""Characters after which a line is told though it has not ended."""


async def team_reply(
    service: Service, choice: Choice, form: Common, problem: str, tokens: int | None, request: Request, *, chat: bool
) -> Response:
    """Run the program and reply with its answer. ``tokens``: how many all workers may decode together."""
    spec = _spec(service, choice, form, problem, tokens)
    run = await service.begin(spec, client_of(request, form.user))
    kind, name = ("chatcmpl", "chat.completion") if chat else ("cmpl", "text_completion")
    if form.stream:
        about = stamp(kind, f"{name}.chunk" if chat else name, form.model, run)
        wants = form.stream_options is not None and form.stream_options.include_usage
        return await opened(request, _stream(service, run, about, chat, wants))
    return await unless_gone(request, _whole(service, run, stamp(kind, name, form.model, run), chat))


def _spec(service: Service, choice: Choice, form: Common, problem: str, tokens: int | None) -> dict[str, Any]:
    assert choice.program is not None
    limits, extra = service.settings.limits, form.kvorum
    if (form.n or 1) > 1:
        raise ApiError(400, "A program gives one reply.", param="n")
    if not problem.strip():
        raise ApiError(400, "The problem is empty; say what to solve.", param="messages")
    if extra.view or extra.into:
        raise ApiError(400, "View and into are for plain decoding.", param="kvorum")
    if tokens == 0:
        raise ApiError(400, "A reply has at least 1 token.", param="max_tokens")
    given = extra.budget.model_dump(exclude_none=True) if extra.budget is not None else {}
    if tokens is not None:
        given.setdefault("decoded", tokens)
    return service.spec(
        choice.program,
        problem,
        check_workers(choice.workers, limits),
        check_params(choice.program, extra.params),
        plain_budget(check_budget(given, limits)),
        {
            "temperature": 0.6 if form.temperature is None else form.temperature,
            "top_p": 0.95 if form.top_p is None else form.top_p,
            "top_k": max(0, form.top_k or 0),
            "min_p": form.min_p or 0.0,
        },
        fresh_seed() if form.seed is None else form.seed % 2**63,
    )


@dataclass(slots=True)
class _Lines:
    """The workers' text, line by line."""

    open: dict[str, str] = field(default_factory=dict)

    def take(self, told: dict[str, Any]) -> list[str]:
        """The lines that an event has finished."""
        ready = []
        for row in told.get("rows", ()) if told["event"] == "tick" else ():
            name = row["worker"]
            text = self.open.get(name, "") + row.get("given", "") + row["text"]
            *lines, rest = text.split("\n")
            if len(rest) > _LINE:
                lines, rest = [*lines, rest], ""
            ready += [f"{name} | {line}\n" for line in lines if line.strip()]
            self.open[name] = rest
        return ready

    def rest(self) -> list[str]:
        """What was not finished."""
        return [f"{name} | {line}\n" for name, line in self.open.items() if line.strip()]


async def _whole(service: Service, run: str, about: dict[str, Any], chat: bool) -> Response:
    lines, written = _Lines(), list[str]()
    async for told in _events(service, run):
        written += lines.take(told)
    end = await _end(service, run)
    reasoning = "".join([*written, *lines.rest()])
    choice: dict[str, Any] = {"index": 0, "finish_reason": end.finish, "logprobs": None}
    if chat:
        choice["message"] = {
            "role": "assistant",
            "content": end.answer,
            "refusal": None,
            "reasoning_content": reasoning,
        }
    else:
        choice["text"] = end.answer
    return JSONResponse({**about, "choices": [choice], "usage": end.usage})


async def _stream(
    service: Service, run: str, about: dict[str, Any], chat: bool, usage: bool
) -> AsyncGenerator[str, None]:
    lines = _Lines()

    def piece(delta: dict[str, Any], finish: str | None = None) -> str:
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish}
        choice |= {"delta": delta} if chat else {"text": delta.get("content", "")}
        return event({**about, "choices": [choice]})

    source = _events(service, run)
    try:
        yield piece({"role": "assistant", "content": ""})
        async for told in source:
            if chat:
                for line in lines.take(told):
                    yield piece({"reasoning_content": line})
        if chat:
            for line in lines.rest():
                yield piece({"reasoning_content": line})
        end = await _end(service, run)
        yield piece({"content": end.answer})
        yield piece({}, end.finish)
        if usage:
            yield event({**about, "choices": [], "usage": end.usage})
        yield "data: [DONE]\n\n"
    finally:
        await source.aclose()


async def _events(service: Service, run: str) -> AsyncGenerator[dict[str, Any], None]:
    """A run's events until it is over; it is stopped if nobody listens any more."""
    over = False
    source = service.watch(run, -1)
    try:
        async for told in source:
            if told is not None:
                yield json.loads(told[2])
        over = True
    finally:
        await source.aclose()
        if not over:
            await service.stop_run(run)


@dataclass(frozen=True, slots=True)
class _End:
    answer: str
    finish: str
    usage: dict[str, Any]


async def _end(service: Service, run: str) -> _End:
    record = await service.record(run)
    if record is None or record.status == "stopped":
        raise conflict("The run was stopped.")
    if record.error is not None:
        raise ApiError(500, record.error["message"], kind="server_error", code="run_failed")
    ledger = Ledger(**(record.ledger or {}))
    usage = usage_of(ledger.prefill, ledger.decoded + ledger.latent, ledger, run=run)
    return _End(record.answer or "", "stop" if record.outcome == "answered" else "length", usage)
