"""``/v1/systemone`` and ``/v1/decisions``: many typed questions about one state, answered by probabilities.

Nothing is written: the state is encoded once, all questions are rows of one tick behind it. ``docs/decisions.md`` has
examples and what is different from the services that these forms come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Request, Response

from kvorum.harness.decisions.questions import Question, named
from kvorum.harness.decisions.wire import state_text, to_openai, to_system_one
from kvorum.serve.api.decisions.forms import (
    DecisionBase,
    DecisionExtra,
    DecisionForm,
    DecisionReply,
    DecisionUsage,
    SystemOneForm,
    SystemOneReply,
    SystemOneUsage,
)
from kvorum.serve.api.decisions.state import input_text, openai_questions, system_one_questions
from kvorum.serve.api.event_stream import unless_gone
from kvorum.serve.api.request_checks import Client, ServiceDep, find_model
from kvorum.serve.engine_thread.decider import Decided
from kvorum.serve.error_forms import REQUEST_ID, SYSTEM_ONE, request_id
from kvorum.serve.errors import ApiError, as_api_error
from kvorum.serve.keys.caller import Caller
from kvorum.serve.reply_models.base import errors
from kvorum.serve.service import Service

router = APIRouter(tags=["Decisions"])
_REFUSALS = errors(404, 408, 409, 413, 415, 429)


@router.post(SYSTEM_ONE, responses=_REFUSALS, summary="Typed questions by name")
async def system_one(
    form: SystemOneForm, request: Request, response: Response, service: ServiceDep, client: Client
) -> SystemOneReply:
    """System One's form. What is wrong with a request is a 422 with its ``detail``, as that API has it."""
    if form.assets:
        raise ApiError(400, "This server reads text alone; leave assets out.", param="assets")
    questions, state = system_one_questions(form.questions), state_text(form.state)
    found = await _decide(service, request, form, state, "state", questions, client)
    response.headers[REQUEST_ID] = request_id()
    return SystemOneReply(
        model=form.model,
        answers=to_system_one(found.decisions),
        usage=SystemOneUsage(
            input_tokens=found.decisions.ledger.prefill + found.seen, input_tokens_details=_cached(found)
        ),
        kvorum=_extra(found),
    )


@router.post("/v1/decisions", responses=_REFUSALS, summary="Typed questions in a list")
async def decisions(form: DecisionForm, request: Request, service: ServiceDep, client: Client) -> DecisionReply:
    """OpenAI's form: predicates, choices and scores, answered in order."""
    questions = openai_questions(form.questions)
    found = await _decide(service, request, form, input_text(form.input), "input", questions, client)
    tokens = found.decisions.ledger.prefill + found.seen
    usage = DecisionUsage(
        input_tokens=tokens,
        input_tokens_details=_cached(found),
        output_tokens_details={"reasoning_tokens": 0},
        total_tokens=tokens,
    )
    answers = to_openai(found.decisions, questions)
    return DecisionReply(model=form.model, answers=answers, usage=usage, kvorum=_extra(found))


async def _decide(
    service: Service,
    request: Request,
    form: DecisionBase,
    state: str,
    place: str,
    questions: Sequence[Question],
    client: Caller,
) -> Decided:
    """Ask ``questions`` about ``state``, which stands at ``place``, or about the form's view. Raises ApiError."""
    if find_model(service, form.model).program is not None:
        message = f"Questions are asked of the model itself: give {service.name}, without a program."
        raise ApiError(400, message, param="model")
    if state and form.view:
        raise ApiError(400, f"Give {place} or view, not both.", param="view")
    try:
        named(questions)
    except Exception as error:
        raise as_api_error(error, "questions") from error
    tokens = len(await service.encode(state)) if state else 0
    asker = client.named(form.user)
    work = service.thread.call(service.decider.decide, state, tokens, form.view, questions, form.orders, asker)
    return await unless_gone(request.receive, service.ended, work)


def _cached(found: Decided) -> dict[Literal["cached_tokens", "cache_write_tokens"], int]:
    return {"cached_tokens": found.seen, "cache_write_tokens": 0}


def _extra(found: Decided) -> DecisionExtra:
    mass = [min(1.0, decision.mass) for decision in found.decisions]
    return DecisionExtra(mass=mass, ledger=found.decisions.ledger)
