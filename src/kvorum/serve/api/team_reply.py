"""A program behind the OpenAI routes: its workers' lines are the reasoning, its answer the reply.

The run is one as under ``/v1/runs``: stored, to be watched and replayed. It is stopped when the client goes away.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress

from fastapi import Request
from starlette.responses import Response

from kvorum.engine.budget import Ledger
from kvorum.serve.api.lookups import NamedModel, find_run
from kvorum.serve.api.openai_reply import openai_reply
from kvorum.serve.api.run_limits import checked_spec
from kvorum.serve.choice_format import ChoiceFormat
from kvorum.serve.engine_thread.generator import Piece, ReplyPart, Usage
from kvorum.serve.errors import ApiError, conflict
from kvorum.serve.reply_models import RunSpec
from kvorum.serve.request_models import BudgetForm, CompletionBase
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
    how: ChoiceFormat,
) -> Response:
    """Run the program and reply with its answer. ``tokens``: how many all workers may decode together."""
    spec = _spec(service, named, form, problem, tokens)
    run = await service.thread.call(service.runs.start, spec, form.client(client))
    return await openai_reply(request.receive, form, _pieces(service, run), how, number=run)


def _spec(service: Service, named: NamedModel, form: CompletionBase, problem: str, tokens: int | None) -> RunSpec:
    assert named.program is not None
    extra = form.kvorum
    if (form.n or 1) > 1:
        raise ApiError(400, "A program gives one reply.", param="n")
    if extra.view or extra.into:
        raise ApiError(400, "View and into are for plain decoding.", param="kvorum")
    if tokens == 0:
        raise ApiError(400, "A reply has at least 1 token.", param="max_tokens")
    budget = extra.budget
    if tokens is not None and (budget is None or budget.decoded is None):
        budget = (budget or BudgetForm()).model_copy(update={"decoded": tokens})
    return checked_spec(
        service,
        named.program,
        problem,
        workers=named.workers,
        params=extra.params,
        budget=budget,
        sampling=form.sampling(temperature=0.6, top_p=0.95),
        seed=form.seed_or_fresh(),
        place="messages",
    )


async def _pieces(service: Service, run: str) -> AsyncGenerator[Piece, None]:
    """What a run's workers write, line by line, and its answer when it is over; it is stopped if nobody listens."""
    over, begun = False, dict[str, str]()
    source = service.watch(run, -1)
    try:
        yield ReplyPart(0)
        async for update in source:
            for line in _lines(begun, json.loads(update[2])) if update is not None else ():
                yield ReplyPart(0, reasoning=line)
        over = True
    finally:
        await source.aclose()
        if not over:
            with suppress(ApiError):
                await service.thread.call(service.runs.stop, run)
    for name, rest in begun.items():
        if rest.strip():
            yield ReplyPart(0, reasoning=f"{name} | {rest}\n")
    record = await find_run(service, run)
    if record.status == "stopped":
        raise conflict("The run was stopped.")
    if record.error is not None:
        raise ApiError(500, record.error["message"], kind="server_error", code="run_failed")
    yield ReplyPart(0, record.answer or "", "stop" if record.outcome == "answered" else "length")
    ledger = Ledger(**record.ledger) if record.ledger else Ledger()
    yield Usage(ledger.prefill, ledger.decoded + ledger.latent, ledger=ledger, run=run)


def _lines(begun: dict[str, str], event: Event) -> Iterator[str]:
    """The lines that an event has finished; ``begun``: by worker the text that has not ended yet."""
    for row in event["rows"] if event["event"] == "tick" else ():
        name = row["worker"]
        *lines, rest = (begun.get(name, "") + row.get("given", "") + row["text"]).split("\n")
        if len(rest) > _LINE:
            lines, rest = [*lines, rest], ""
        begun[name] = rest
        yield from (f"{name} | {line}\n" for line in lines if line.strip())
