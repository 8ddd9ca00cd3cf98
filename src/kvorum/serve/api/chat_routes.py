"""``/v1/chat/completions``: a conversation to the assistant's next message."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kvorum.jsontypes import Json, JsonObject
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
from kvorum.serve.reply_models import ChatReply, errors
from kvorum.serve.request_models import ChatForm, Message
from kvorum.serve.service import Service

router = APIRouter(tags=["OpenAI"])


@router.post(
    "/v1/chat/completions",
    response_model=None,
    responses={200: {"model": ChatReply, "content": {"text/event-stream": {}}}, **errors(404, 408, 409, 413, 415, 429)},
    summary="Continue a conversation",
)
async def chat(form: ChatForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """The assistant's next message. ``model`` NAME is plain decoding, NAME:PROGRAM-4 a team of four."""
    limits = service.settings.limits
    named = read_model_name(service, form.model)
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
    client = client_name(client, form)
    if named.program is not None:
        return await team_reply(service, named, form, _problem(messages), given, request, client)
    ids = await service.chat(messages)
    positions = service.engine.shape.max_positions
    tokens = given or (limits.default if positions is None else max(1, min(limits.default, positions - len(ids))))
    wanted = decode_request(service, form, [ids], tokens, top=(form.top_logprobs or 0) if form.logprobs else None)
    if form.stream:
        return await opened(request, _stream(service, form, wanted, client))
    return await unless_gone(request, _whole(service, form, wanted, client))


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


async def _whole(service: Service, form: ChatForm, wanted: DecodeRequest, client: str) -> Response:
    decoded, usage = await collect(service.pieces(wanted, client), wanted.choices)
    choices: list[Json] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": service.logprobs.chat(choice.tokens) if form.logprobs else None,
            "finish_reason": choice.finish,
        }
        for index, choice in enumerate(decoded)
    ]
    return JSONResponse({**reply_head(form, chat=True), "choices": choices, "usage": usage_reply(usage)})


async def _stream(service: Service, form: ChatForm, wanted: DecodeRequest, client: str) -> AsyncGenerator[str, None]:
    head = reply_head(form, chat=True)

    def chunk(index: int, delta: JsonObject, logprobs: Json = None, finish: str | None = None) -> str:
        choice: Json = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return event({**head, "choices": [choice]})

    pieces = service.pieces(wanted, client)
    begun = [False] * wanted.choices
    try:
        async for piece in pieces:
            if isinstance(piece, NewToken):
                token, at = piece.token, piece.index
                if not begun[at]:
                    begun[at] = True
                    yield chunk(at, {"role": "assistant", "content": ""})
                logprobs = service.logprobs.chat([token]) if form.logprobs else None
                if token.text or logprobs is not None:
                    yield chunk(at, {"content": token.text}, logprobs)
                if token.finish is not None:
                    yield chunk(at, {}, finish=finish_reason(token.finish))
            elif isinstance(piece, Usage) and form.stream_options.include_usage:
                yield event({**head, "choices": [], "usage": usage_reply(piece)})
        yield "data: [DONE]\n\n"
    finally:
        await pieces.aclose()
