"""A program behind the OpenAI routes: its workers' lines are the reasoning, its answer the reply.

Where a program says whose words are the answer as they are written, these are the reply's text at once, beside the
others' thoughts, token by token.
The run is one as under ``/v1/runs``: stored, to be watched and replayed. It is stopped when the client goes away.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress

from kvorum.engine.budget import Ledger
from kvorum.programs import REGISTRY
from kvorum.serve.api.request_checks import NamedModel, checked_spec, find_run
from kvorum.serve.engine_thread.generator import Piece, ReplyPart, Usage
from kvorum.serve.errors import ApiError, conflict
from kvorum.serve.keys.caller import Caller
from kvorum.serve.request_models.completions import CompletionBase
from kvorum.serve.request_models.runs import BudgetForm
from kvorum.serve.service import Service
from kvorum.store.events import Event, StartEvent

_LINE = 400
"""Characters after which a line is sent though it has not ended."""


async def start_team(
    service: Service,
    named: NamedModel,
    form: CompletionBase,
    problem: str,
    tokens: int | None,
    client: Caller,
    *,
    thinking: bool | None = None,
) -> str:
    """Start the program and return the run's id. ``tokens``: how many all workers may decode together. ``thinking``:
    whether they are told to think; None: as the model's chat template has it."""
    assert named.program is not None
    asked = form.kvorum
    if (form.n or 1) > 1:
        raise ApiError(400, "A program gives one reply.", param="n")
    if asked.view or asked.into:
        raise ApiError(400, "View and into are for plain decoding.", param="kvorum")
    if tokens == 0:
        raise ApiError(400, "A reply has at least 1 token.", param="max_tokens")
    if any(parameter.name == "answer" for parameter in named.program.parameters):
        asked = asked.model_copy(update={"params": {"answer": "text", **asked.params}})  # a chat is a text
    if tokens is not None and (asked.budget is None or asked.budget.decoded is None):
        budget = (asked.budget or BudgetForm()).model_copy(update={"decoded": tokens})
        asked = asked.model_copy(update={"budget": budget})
    sampling, seed = form.sampling(temperature=0.6, top_p=0.95), form.seed_or_fresh()
    spec = await checked_spec(
        service,
        named.program,
        problem,
        named.workers,
        asked,
        sampling=sampling,
        seed=seed,
        thinking=thinking,
        place="messages",
    )
    return await service.thread.call(service.runs.start, spec, client.named(form.user))


async def team_pieces(service: Service, run: str, client: Caller) -> AsyncGenerator[Piece, None]:
    """What a run's workers write, line by line, and its answer when it is over; it is stopped if nobody listens."""
    over, begun, said, speaker = False, dict[str, str](), "", ""
    service.listening[run] += 1
    source = service.watch(run, -1)
    try:
        yield ReplyPart(0)
        async for update in source:
            event = None if update is None else json.loads(update[2])
            if event is not None and event["event"] == "start":
                speaker = _speaker(event)
            if event is None or not speaker:
                for line in _lines(begun, event) if event is not None else ():
                    yield ReplyPart(0, reasoning=line)
                continue
            for row in event["rows"] if event["event"] == "tick" else ():
                if row["worker"] != speaker:
                    yield ReplyPart(0, reasoning=row["text"])
                elif words := row["text"] if said else row["text"].lstrip():
                    said += words
                    yield ReplyPart(0, words)
        over = True
    finally:
        await source.aclose()
        service.listening[run] -= 1
        last = not service.listening[run]
        if last:
            del service.listening[run]
        if last and not over:
            with suppress(ApiError):
                await service.thread.call(service.runs.stop, run)
    for name, rest in begun.items():
        if rest.strip():
            yield ReplyPart(0, reasoning=f"{name} | {rest}\n")
    record = await find_run(service.store, run, client)
    if record.status == "stopped":
        raise conflict("The run was stopped.")
    if record.error is not None:
        raise ApiError(500, record.error["message"], kind="server_error", code="run_failed")
    yield ReplyPart(0, "" if said else record.answer or "", "stop" if record.outcome == "answered" else "length")
    ledger = Ledger(**record.ledger) if record.ledger else Ledger()
    yield Usage(ledger.prefill, ledger.decoded + ledger.latent, ledger=ledger, run=run)


def _speaker(start: StartEvent) -> str:
    """The worker whose words are the answer as they are written, or ""."""
    program, workers = REGISTRY.get(start["program"]), start["workers"]
    return "" if program is None or program.speaker is None else workers[program.speaker]


def _lines(begun: dict[str, str], event: Event) -> Iterator[str]:
    """The lines that an event has finished; ``begun``: by worker the text that has not ended yet."""
    for row in event["rows"] if event["event"] == "tick" else ():
        name = row["worker"]
        *lines, rest = (begun.get(name, "") + row.get("given", "") + row["text"]).split("\n")
        if len(rest) > _LINE:
            lines, rest = [*lines, rest], ""
        begun[name] = rest
        yield from (f"{name} | {line}\n" for line in lines if line.strip())
