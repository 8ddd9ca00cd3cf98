"""``/v1/completions``: text or token ids to text, with echo and log-probabilities."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kvorum.engine.text import decode
from kvorum.serve.api.event_stream import unless_gone
from kvorum.serve.api.model_names import choose
from kvorum.serve.api.plain_decode import ask, client_of, collect, event, finish, opened, stamp, usage_reply
from kvorum.serve.api.reply_models import CompletionReply, errors
from kvorum.serve.api.request_models import CompletionForm
from kvorum.serve.api.team_reply import team_reply
from kvorum.serve.engine_thread.generator import Ask, Echoed, Said, Usage
from kvorum.serve.errors import ApiError
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
async def completions(form: CompletionForm, request: Request) -> Response:
    """Text or token ids to text. ``echo`` with ``logprobs`` scores the prompt, as log-likelihood harnesses ask."""
    service: Service = request.app.state.service
    choice = choose(form.model, service.name, service.settings.limits)
    if form.suffix:
        raise ApiError(400, "This server does not fill in between two texts.", param="suffix")
    if form.best_of is not None and form.best_of != (form.n or 1):
        raise ApiError(400, "best_of is not taken here; ask for n replies.", param="best_of")
    if choice.program is not None:
        if not isinstance(form.prompt, str):
            raise ApiError(400, "A program takes one prompt, as text.", param="prompt")
        return await team_reply(service, choice, form, form.prompt, form.max_tokens, request, chat=False)
    top = None if form.logprobs is None or form.logprobs is False else int(form.logprobs)
    if top is not None and not 0 <= top <= 20:
        raise ApiError(400, "logprobs lies from 0 to 20.", param="logprobs")
    tokens = 16 if form.max_tokens is None else form.max_tokens
    if not tokens and not form.echo:
        raise ApiError(400, "max_tokens=0 needs echo=true: there is nothing to reply otherwise.", param="max_tokens")
    wanted = ask(service, form, await _prompts(service, form.prompt), tokens, top, bool(form.echo))
    client, about = client_of(request, form.user), stamp("cmpl", "text_completion", form.model, secrets.token_hex(12))
    if form.stream:
        return await opened(request, _stream(service, form, wanted, top, about, client))
    return await unless_gone(request, _whole(service, wanted, top, about, client))


async def _prompts(service: Service, given: str | list[Any]) -> list[list[int]]:
    """Each prompt's ids."""
    if isinstance(given, str):
        return [await service.encode(given)]
    if not given:
        raise ApiError(400, "The prompt is empty: it has no token to go on from.", param="prompt")
    if len(given) > service.settings.limits.choices and not isinstance(given[0], int):
        raise ApiError(400, f"At most {service.settings.limits.choices} prompts at a time.", param="prompt")
    if isinstance(given[0], int):
        return [service.ids(given)]
    return [await service.encode(one) if isinstance(one, str) else service.ids(one) for one in given]


async def _whole(service: Service, wanted: Ask, top: int | None, about: dict[str, Any], client: str) -> Response:
    count = len(wanted.prompts) * wanted.choices
    spoken, usage = await collect(service.pieces(wanted, client), count)
    choices = []
    for index, said in enumerate(spoken):
        given = decode(service.engine.tokenizer, said.echoed.ids) if said.echoed is not None else ""
        told = None if top is None else service.speller.plain(said.tokens, said.echoed)
        choices.append({"index": index, "text": given + said.text, "logprobs": told, "finish_reason": said.finish})
    return JSONResponse({**about, "choices": choices, "usage": usage_reply(usage)})


async def _stream(
    service: Service, form: CompletionForm, wanted: Ask, top: int | None, about: dict[str, Any], client: str
) -> AsyncGenerator[str, None]:
    pieces = service.pieces(wanted, client)
    lengths = [0] * len(wanted.prompts) * wanted.choices
    try:
        async for piece in pieces:
            if isinstance(piece, Usage):
                if form.stream_options is not None and form.stream_options.include_usage:
                    yield event({**about, "choices": [], "usage": usage_reply(piece)})
                continue
            choice: dict[str, Any] = {"index": piece.index, "logprobs": None, "finish_reason": None}
            if isinstance(piece, Said):
                token = piece.token
                choice["text"] = token.text
                if top is not None:
                    choice["logprobs"] = service.speller.plain([token], start=lengths[piece.index])
                choice["finish_reason"] = None if token.finish is None else finish(token.finish)
                if not token.text and token.finish is None and top is None:
                    continue  # part of a character
            elif isinstance(piece, Echoed):
                choice["text"] = decode(service.engine.tokenizer, piece.scored.ids)
                choice["logprobs"] = None if top is None else service.speller.plain([], piece.scored)
                choice["finish_reason"] = None if wanted.tokens else "length"
            lengths[piece.index] += len(choice["text"])
            yield event({**about, "choices": [choice]})
        yield "data: [DONE]\n\n"
    finally:
        await pieces.aclose()
