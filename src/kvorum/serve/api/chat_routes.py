"""``/v1/chat/completions``: a conversation to the assistant's next message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from kvorum.jsontypes import JsonObject
from kvorum.serve.api.dependencies import Client, ServiceDep
from kvorum.serve.api.model_names import read_model_name
from kvorum.serve.api.plain_decode import DecodedChoice, client_name, decode_request, finish_reason, plain_reply
from kvorum.serve.api.team_reply import team_reply
from kvorum.serve.engine_thread.generator import EchoedPrompt, NewToken
from kvorum.serve.errors import ApiError
from kvorum.serve.logprob_format import LogprobFormat
from kvorum.serve.reply_models import ChatReply, errors
from kvorum.serve.request_models import ChatForm, Message

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
    how = _ChatFormat(service.logprobs if form.logprobs else None)
    return await plain_reply(service, form, wanted, request, client, how)


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


class _ChatFormat:
    def __init__(self, logprobs: LogprobFormat | None) -> None:
        self._logprobs = logprobs
        self._begun: set[int] = set()

    def whole(self, choice: DecodedChoice) -> JsonObject:
        return {
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": None if self._logprobs is None else self._logprobs.chat(choice.tokens),
            "finish_reason": choice.finish,
        }

    def parts(self, piece: NewToken | EchoedPrompt) -> Iterator[JsonObject]:
        if isinstance(piece, EchoedPrompt):
            return
        token = piece.token
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            yield {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        logprobs = None if self._logprobs is None else self._logprobs.chat([token])
        if token.text or logprobs is not None:
            yield {"delta": {"content": token.text}, "logprobs": logprobs, "finish_reason": None}
        if token.finish is not None:
            yield {"delta": {}, "logprobs": None, "finish_reason": finish_reason(token.finish)}
