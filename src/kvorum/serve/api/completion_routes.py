"""``/v1/completions``: text to text. A model NAME is plain decoding, NAME:PROGRAM-4 a team of four (``team_reply``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from kvorum.sampling.grammar import Grammar
from kvorum.serve.answer_grammar import asked_grammar
from kvorum.serve.api.decode_request import decode_request
from kvorum.serve.api.openai_reply import openai_reply
from kvorum.serve.api.request_checks import Client, ServiceDep, find_model
from kvorum.serve.api.team_answer import shared_tokens, written_down
from kvorum.serve.api.team_reply import start_team, team_pieces
from kvorum.serve.api.truncation import say_how_full
from kvorum.serve.choice_format import TextFormat
from kvorum.serve.engine_thread.generator import Piece
from kvorum.serve.errors import ApiError, within
from kvorum.serve.infill import infill_ids
from kvorum.serve.keys.caller import Caller
from kvorum.serve.reply_models.base import errors
from kvorum.serve.reply_models.completions import CompletionReply
from kvorum.serve.request_models.completions import CompletionForm, Extra
from kvorum.serve.service import Service

router = APIRouter(tags=["OpenAI"])


@router.post(
    "/v1/completions",
    response_model=None,
    responses={
        200: {"model": CompletionReply, "content": {"text/event-stream": {}}},
        **errors(404, 408, 409, 413, 415, 429),
    },
    summary="Complete text",
)
async def completions(form: CompletionForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """Text or token ids to text. ``echo`` with ``logprobs`` scores the prompt, as log-likelihood harnesses ask."""
    named = find_model(service, form.model)
    if form.suffix and (named.program is not None or service.infill is None):
        raise ApiError(400, "This model cannot fill in between two texts: it has no marks for that.", param="suffix")
    if form.best_of is not None and form.best_of != (form.n or 1):
        raise ApiError(400, "best_of is not taken here; ask for n replies.", param="best_of")
    asked = asked_grammar(form)
    grammar = None if asked is None else asked[0]
    if asked is not None:
        await service.prepare(*asked)
    if named.program is not None:
        if not isinstance(form.prompt, str):
            raise ApiError(400, "A program takes one prompt, as text.", param="prompt")
        thoughts, last = (form.max_tokens, None) if grammar is None else shared_tokens(form.max_tokens)
        run = await start_team(service, named, form, form.prompt, thoughts, client)
        pieces = team_pieces(service, run, client)
        if grammar is not None:
            pieces = written_down(pieces, partial(_last_reply, service, form, form.prompt, grammar, last, client))
        return await openai_reply(request, form, pieces, TextFormat(), number=run)
    top = None if form.logprobs is None or form.logprobs is False else int(form.logprobs)
    if top is not None and not 0 <= top <= 20:
        raise ApiError(400, "logprobs lies from 0 to 20.", param="logprobs")
    tokens = 16 if form.max_tokens is None else form.max_tokens
    if not tokens and not form.echo:
        raise ApiError(400, "max_tokens=0 needs echo=true: there is nothing to reply otherwise.", param="max_tokens")
    prompts = await _infill(service, form) if form.suffix else await _prompts(service, form.prompt)
    decoding = decode_request(service, form, prompts, tokens, top, echo=bool(form.echo), grammar=grammar)
    logprobs = None if top is None else service.logprobs
    how = TextFormat(service.engine.tokenizer, prompts, decoding.choices, logprobs)
    pieces, count = service.pieces(decoding, client.named(form.user)), len(prompts) * decoding.choices
    reply = await openai_reply(request, form, pieces, how, choices=count)
    return say_how_full(reply, service, max(map(len, prompts)))


async def _last_reply(
    service: Service,
    form: CompletionForm,
    prompt: str,
    grammar: Grammar,
    tokens: int | None,
    client: Caller,
    words: str,
) -> AsyncGenerator[Piece, None]:
    """A team's answer in its form, from the prompt with what the team has found."""
    ids = await service.encode(f"{prompt}{words}\n\n")
    plain = form.model_copy(update={"kvorum": Extra()})
    ask = decode_request(service, plain, [ids], tokens or service.reply_tokens(len(ids)), None, grammar=grammar)
    return service.pieces(ask, client.named(form.user))


async def _infill(service: Service, form: CompletionForm) -> list[list[int]]:
    """The prompt for what stands between ``prompt`` and ``suffix``."""
    before, behind = form.prompt, form.suffix or ""
    if not isinstance(before, str) or form.echo:
        raise ApiError(400, "With a suffix a prompt is one text, and not echoed.", param="suffix")
    service.check_length(before, behind)
    assert service.infill is not None
    return [service.ids(await asyncio.to_thread(infill_ids, service.engine.tokenizer, service.infill, before, behind))]


async def _prompts(service: Service, given: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
    """The token ids of each prompt. Raises ApiError for none, too many, or ids that the model does not have."""
    if isinstance(given, str):
        return [await service.encode(given)]
    ids = [part for part in given if isinstance(part, int)]
    if ids:
        return [service.ids(ids)]
    if not given:
        raise ApiError(400, "The prompt is empty: it has no token to go on from.", param="prompt")
    within(len(given), service.settings.limits.choices, "prompts", "prompt")
    texts = [(await service.encode(one)) if isinstance(one, str) else one for one in given]
    return [service.ids(one) for one in texts if isinstance(one, list)]
