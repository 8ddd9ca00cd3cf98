"""``/v1/completions``: text or token ids to text, with echo and log-probabilities."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kvorum.engine.text import decode
from kvorum.jsontypes import Json
from kvorum.serve.api.dependencies import Client, ServiceDep
from kvorum.serve.api.event_stream import event, opened, unless_gone
from kvorum.serve.api.model_names import read_model_name
from kvorum.serve.api.plain_decode import (
    client_name,
    collect,
    decode_request,
    finish_reason,
    reply_head,
    usage_reply,
)
from kvorum.serve.api.team_reply import team_reply
from kvorum.serve.engine_thread.generator import DecodeRequest, NewToken, Usage
from kvorum.serve.errors import ApiError
from kvorum.serve.reply_models import CompletionReply, errors
from kvorum.serve.request_models import CompletionForm
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
    named, client = read_model_name(service, form.model), client_name(client, form)
    if form.suffix:
        raise ApiError(400, "This server does not fill in between two texts.", param="suffix")
    if form.best_of is not None and form.best_of != (form.n or 1):
        raise ApiError(400, "best_of is not taken here; ask for n replies.", param="best_of")
    if named.program is not None:
        if not isinstance(form.prompt, str):
            raise ApiError(400, "A program takes one prompt, as text.", param="prompt")
        return await team_reply(service, named, form, form.prompt, form.max_tokens, request, client)
    top = None if form.logprobs is None or form.logprobs is False else int(form.logprobs)
    if top is not None and not 0 <= top <= 20:
        raise ApiError(400, "logprobs lies from 0 to 20.", param="logprobs")
    tokens = 16 if form.max_tokens is None else form.max_tokens
    if not tokens and not form.echo:
        raise ApiError(400, "max_tokens=0 needs echo=true: there is nothing to reply otherwise.", param="max_tokens")
    prompts = await _prompts(service, form.prompt)
    wanted = decode_request(service, form, prompts, tokens, top=top, echo=bool(form.echo))
    if form.stream:
        return await opened(request, _stream(service, form, wanted, client))
    return await unless_gone(request, _whole(service, form, wanted, client))


async def _prompts(service: Service, given: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
    """Each prompt's ids."""
    if isinstance(given, str):
        return [await service.encode(given)]
    ids = [part for part in given if isinstance(part, int)]
    if ids:
        return [service.ids(ids)]
    if not given:
        raise ApiError(400, "The prompt is empty: it has no token to go on from.", param="prompt")
    if len(given) > service.settings.limits.choices:
        raise ApiError(400, f"At most {service.settings.limits.choices} prompts at a time.", param="prompt")
    texts = [(await service.encode(one)) if isinstance(one, str) else one for one in given]
    return [service.ids(one) for one in texts if isinstance(one, list)]


async def _whole(service: Service, form: CompletionForm, wanted: DecodeRequest, client: str) -> Response:
    decoded, usage = await collect(service.pieces(wanted, client), len(wanted.prompts) * wanted.choices)
    choices: list[Json] = []
    for index, choice in enumerate(decoded):
        prompt = decode(service.engine.tokenizer, choice.echoed.ids) if choice.echoed is not None else ""
        logprobs = service.logprobs.plain(choice.tokens, choice.echoed) if wanted.logprobs else None
        text = prompt + choice.text
        choices.append({"index": index, "text": text, "logprobs": logprobs, "finish_reason": choice.finish})
    return JSONResponse({**reply_head(form, chat=False), "choices": choices, "usage": usage_reply(usage)})


async def _stream(
    service: Service, form: CompletionForm, wanted: DecodeRequest, client: str
) -> AsyncGenerator[str, None]:
    head, pieces = reply_head(form, chat=False), service.pieces(wanted, client)
    lengths = [0] * len(wanted.prompts) * wanted.choices
    try:
        async for piece in pieces:
            if isinstance(piece, Usage):
                if form.stream_options.include_usage:
                    yield event({**head, "choices": [], "usage": usage_reply(piece)})
                continue
            logprobs: Json = None
            if isinstance(piece, NewToken):
                token = piece.token
                text, finish = token.text, None if token.finish is None else finish_reason(token.finish)
                if wanted.logprobs:
                    logprobs = service.logprobs.plain([token], start=lengths[piece.index])
                elif not text and finish is None:
                    continue  # part of a character
            else:
                text = decode(service.engine.tokenizer, piece.scored.ids)
                finish = None if wanted.tokens else "length"
                if wanted.logprobs:
                    logprobs = service.logprobs.plain([], piece.scored)
            lengths[piece.index] += len(text)
            choice: Json = {"index": piece.index, "text": text, "logprobs": logprobs, "finish_reason": finish}
            yield event({**head, "choices": [choice]})
        yield "data: [DONE]\n\n"
    finally:
        await pieces.aclose()
