"""``/v1/chat/completions`` and ``/v1/completions``: a conversation to its next message, and text to text.

A model NAME is plain decoding, NAME:PROGRAM-4 a team of four (``team_reply``).
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from kvorum.serve.api.openai_reply import openai_reply
from kvorum.serve.api.request_checks import Client, ServiceDep, find_model
from kvorum.serve.api.team_reply import start_team, team_pieces
from kvorum.serve.choice_format import ChatFormat, TextFormat
from kvorum.serve.engine_thread.generator import DecodeRequest
from kvorum.serve.errors import ApiError, within
from kvorum.serve.reply_models.base import errors
from kvorum.serve.reply_models.completions import ChatReply, CompletionReply
from kvorum.serve.request_models.chat import ChatForm
from kvorum.serve.request_models.completions import CompletionBase, CompletionForm
from kvorum.serve.request_models.messages import Message
from kvorum.serve.service import Service

router = APIRouter(tags=["OpenAI"])


_ROLES = {"developer": "system", "function": "tool"}
"""What chat templates call them."""
_REFUSALS = errors(404, 408, 409, 413, 415, 429)


@router.post(
    "/v1/chat/completions",
    response_model=None,
    responses={200: {"model": ChatReply, "content": {"text/event-stream": {}}}, **_REFUSALS},
    summary="Continue a conversation",
)
async def chat(form: ChatForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """The assistant's next message. ``model`` NAME is plain decoding, NAME:PROGRAM-4 a team of four."""
    limits = service.settings.limits
    named = find_model(service, form.model)
    if form.tools:
        raise ApiError(400, "Tools are not taken here.", param="tools")
    if form.response_format is not None and form.response_format.get("type", "text") != "text":
        raise ApiError(400, "Only replies of text are given here.", param="response_format")
    if form.top_logprobs and not form.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs=true.", param="top_logprobs")
    messages = [
        {"role": _ROLES.get(message.role, message.role), "content": _text(message)} for message in form.messages
    ]
    given = form.max_completion_tokens if form.max_completion_tokens is not None else form.max_tokens
    if given == 0:
        raise ApiError(400, "A reply has at least 1 token.", param="max_completion_tokens")
    if named.program is not None:
        run = await start_team(service, named, form, _problem(messages), given, client)
        return await openai_reply(request, form, team_pieces(service, run), ChatFormat(), number=run)
    ids = await service.chat(messages, form.thinking)
    positions = service.engine.shape.longest
    most = limits.default_tokens
    tokens = given or (most if positions is None else max(1, min(most, positions - len(ids))))
    top = (form.top_logprobs or 0) if form.logprobs else None
    ask = _decode_request(service, form, [ids], tokens, top)
    pieces, how = service.pieces(ask, form.client(client)), ChatFormat(service.logprobs if form.logprobs else None)
    return await openai_reply(request, form, pieces, how, choices=ask.choices)


@router.post(
    "/v1/completions",
    response_model=None,
    responses={200: {"model": CompletionReply, "content": {"text/event-stream": {}}}, **_REFUSALS},
    summary="Complete text",
)
async def completions(form: CompletionForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """Text or token ids to text. ``echo`` with ``logprobs`` scores the prompt, as log-likelihood harnesses ask."""
    named = find_model(service, form.model)
    if form.suffix:
        raise ApiError(400, "This server does not fill in between two texts.", param="suffix")
    if form.best_of is not None and form.best_of != (form.n or 1):
        raise ApiError(400, "best_of is not taken here; ask for n replies.", param="best_of")
    if named.program is not None:
        if not isinstance(form.prompt, str):
            raise ApiError(400, "A program takes one prompt, as text.", param="prompt")
        run = await start_team(service, named, form, form.prompt, form.max_tokens, client)
        return await openai_reply(request, form, team_pieces(service, run), TextFormat(), number=run)
    top = None if form.logprobs is None or form.logprobs is False else int(form.logprobs)
    if top is not None and not 0 <= top <= 20:
        raise ApiError(400, "logprobs lies from 0 to 20.", param="logprobs")
    tokens = 16 if form.max_tokens is None else form.max_tokens
    if not tokens and not form.echo:
        raise ApiError(400, "max_tokens=0 needs echo=true: there is nothing to reply otherwise.", param="max_tokens")
    prompts = await _prompts(service, form.prompt)
    ask = _decode_request(service, form, prompts, tokens, top, echo=bool(form.echo))
    logprobs = None if top is None else service.logprobs
    how = TextFormat(service.engine.tokenizer, prompts, ask.choices, logprobs)
    pieces, count = service.pieces(ask, form.client(client)), len(prompts) * ask.choices
    return await openai_reply(request, form, pieces, how, choices=count)


def _text(message: Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    if any(part.type != "text" for part in message.content):
        raise ApiError(400, "Only parts of type text are taken here.", param="messages")
    return "".join(part.text or "" for part in message.content)


def _problem(messages: Sequence[dict[str, str]]) -> str:
    """What a team works on: the user's words alone, or the conversation as text."""
    if len(messages) == 1:
        return messages[0]["content"]
    if len(messages) == 2 and messages[0]["role"] == "system":
        return "\n\n".join(message["content"] for message in messages if message["content"])
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


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


def _decode_request(
    service: Service,
    form: CompletionBase,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    top: int | None,
    *,
    echo: bool = False,
) -> DecodeRequest:
    """A request for plain decoding; ``top`` None: no logprobs. Raises ApiError."""
    limits, extra = service.settings.limits, form.kvorum
    choices = form.n or 1
    replies = choices * len(prompts)
    within(replies, limits.choices, "replies", "n")
    within(tokens, limits.tokens, "tokens", "max_tokens")
    if extra.params or extra.budget is not None:
        raise ApiError(400, "Parameters and a budget are for programs, as in NAME:PROGRAM-4.", param="kvorum")
    if extra.into is not None and replies > 1:
        raise ApiError(400, "Only one reply can be written into a block.", param="kvorum.into")
    stop = [form.stop] if isinstance(form.stop, str) else form.stop or []
    return DecodeRequest(
        prompts,
        choices,
        tokens,
        form.sampling(temperature=1.0, top_p=1.0, seed=form.seed_or_fresh()),
        stop=[mark for mark in stop if mark],
        top=top,
        echo=echo,
        items=extra.view,
        into=extra.into,
    )
