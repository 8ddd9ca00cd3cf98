"""``/v1/chat/completions``: a conversation to the assistant's next message."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kvorum.serve.api.event_stream import unless_gone
from kvorum.serve.api.model_names import choose
from kvorum.serve.api.plain_decode import ask, client_of, collect, event, finish, opened, stamp, usage_reply
from kvorum.serve.api.reply_models import ChatReply, errors
from kvorum.serve.api.request_models import ChatForm, Message
from kvorum.serve.api.team_reply import team_reply
from kvorum.serve.engine_thread.generator import Ask, Said, Usage
from kvorum.serve.errors import ApiError
from kvorum.serve.service import Service

router = APIRouter(tags=["OpenAI"])


@router.post(
    "/v1/chat/completions",
    response_model=None,
    responses={200: {"model": ChatReply, "content": {"text/event-stream": {}}}, **errors(404, 408, 409, 413, 415, 429)},
    summary="Continue a conversation",
)
async def chat(form: ChatForm, request: Request) -> Response:
    """The assistant's next message. ``model`` NAME is plain decoding, NAME:hogwild-4 a team of four."""
    service: Service = request.app.state.service
    limits = service.settings.limits
    choice = choose(form.model, service.name, limits)
    if form.tools:
        raise ApiError(400, "Tools are not taken here.", param="tools")
    if form.response_format is not None and form.response_format.get("type", "text") != "text":
        raise ApiError(400, "Only replies of text are given here.", param="response_format")
    if form.top_logprobs and not form.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs=true.", param="top_logprobs")
    messages = [{"role": _role(message), "content": _text(message)} for message in form.messages]
    given = form.max_completion_tokens if form.max_completion_tokens is not None else form.max_tokens
    if given == 0:
        raise ApiError(400, "A reply has at least 1 token.", param="max_completion_tokens")
    if choice.program is not None:
        return await team_reply(service, choice, form, _problem(messages), given, request, chat=True)
    ids = await service.chat(messages)
    positions = service.engine.shape.max_positions
    tokens = given or (limits.default if positions is None else max(1, min(limits.default, positions - len(ids))))
    wanted = ask(service, form, [ids], tokens, (form.top_logprobs or 0) if form.logprobs else None, False)
    client, number = client_of(request, form.user), secrets.token_hex(12)
    if form.stream:
        about = stamp("chatcmpl", "chat.completion.chunk", form.model, number)
        return await opened(request, _stream(service, form, wanted, about, client))
    about = stamp("chatcmpl", "chat.completion", form.model, number)
    return await unless_gone(request, _whole(service, form, wanted, about, client))


def _role(message: Message) -> str:
    return {"developer": "system", "function": "tool"}.get(message.role, message.role)


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


async def _whole(service: Service, form: ChatForm, wanted: Ask, about: dict[str, Any], client: str) -> Response:
    spoken, usage = await collect(service.pieces(wanted, client), wanted.choices)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": said.text, "refusal": None},
            "logprobs": service.speller.chat(said.tokens) if form.logprobs else None,
            "finish_reason": said.finish,
        }
        for index, said in enumerate(spoken)
    ]
    return JSONResponse({**about, "choices": choices, "usage": usage_reply(usage)})


async def _stream(
    service: Service, form: ChatForm, wanted: Ask, about: dict[str, Any], client: str
) -> AsyncGenerator[str, None]:
    pieces = service.pieces(wanted, client)
    begun = [False] * wanted.choices
    try:
        async for piece in pieces:
            if isinstance(piece, Said):
                token, at = piece.token, piece.index
                if not begun[at]:
                    begun[at] = True
                    yield _chunk(about, at, {"role": "assistant", "content": ""})
                told = service.speller.chat([token]) if form.logprobs else None
                if token.text or told is not None:
                    yield _chunk(about, at, {"content": token.text}, logprobs=told)
                if token.finish is not None:
                    yield _chunk(about, at, {}, finish_reason=finish(token.finish))
            elif isinstance(piece, Usage) and form.stream_options is not None and form.stream_options.include_usage:
                yield event({**about, "choices": [], "usage": usage_reply(piece)})
        yield "data: [DONE]\n\n"
    finally:
        await pieces.aclose()


def _chunk(about: dict[str, Any], index: int, delta: dict[str, Any], **more: Any) -> str:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None} | more
    return event({**about, "choices": [choice]})
