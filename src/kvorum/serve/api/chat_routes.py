"""``/v1/chat/completions``: a conversation to its next message.

A model NAME is plain decoding, NAME:PROGRAM-4 a team of four (``team_reply``).
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from kvorum.serve.answer_grammar import asked_grammar
from kvorum.serve.api.decode_request import decode_request
from kvorum.serve.api.openai_reply import openai_reply
from kvorum.serve.api.request_checks import Client, ServiceDep, find_model
from kvorum.serve.api.team_answer import AnswerInForm, shared_tokens
from kvorum.serve.api.team_reply import start_team, team_pieces
from kvorum.serve.choice_format import ChatFormat
from kvorum.serve.errors import ApiError
from kvorum.serve.reply_models.base import errors
from kvorum.serve.reply_models.completions import ChatReply
from kvorum.serve.request_models.chat import ChatForm
from kvorum.serve.request_models.messages import Message
from kvorum.serve.thoughts import END, apart

router = APIRouter(tags=["OpenAI"])

_ROLES = {"developer": "system", "function": "tool"}
"""What chat templates call them."""


@router.post(
    "/v1/chat/completions",
    response_model=None,
    responses={
        200: {"model": ChatReply, "content": {"text/event-stream": {}}},
        **errors(404, 408, 409, 413, 415, 429),
    },
    summary="Continue a conversation",
)
async def chat(form: ChatForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """The assistant's next message. ``model`` NAME is plain decoding, NAME:PROGRAM-4 a team of four."""
    named = find_model(service, form.model)
    if form.tools:
        raise ApiError(400, "Tools are not taken here.", param="tools")
    if form.top_logprobs and not form.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs=true.", param="top_logprobs")
    messages = [
        {"role": _ROLES.get(message.role, message.role), "content": _text(message)} for message in form.messages
    ]
    given = form.max_completion_tokens if form.max_completion_tokens is not None else form.max_tokens
    if given == 0:
        raise ApiError(400, "A reply has at least 1 token.", param="max_completion_tokens")
    asked = asked_grammar(form)
    grammar = None if asked is None else asked[0]
    if asked is not None:
        await service.prepare(*asked)
    if named.program is not None:
        thoughts, last = (given, None) if grammar is None else shared_tokens(given)
        run = await start_team(service, named, form, _problem(messages), thoughts, client)
        pieces = team_pieces(service, run)
        if grammar is not None:

            async def encode(words: str) -> list[int]:
                return await service.chat(_with_words(messages, words), form.thinking)

            pieces = AnswerInForm(form, grammar, last, encode).pieces(service, pieces, form.client(client))
        return await openai_reply(request, form, pieces, ChatFormat(), number=run)
    ids = await service.chat(messages, form.thinking)
    thinks = service.thinks_already(ids)
    if grammar is not None and asked is not None and thinks:
        grammar = grammar.after(END)
        await service.prepare(grammar, asked[1])
    tokens = given or service.reply_tokens(len(ids))
    top = (form.top_logprobs or 0) if form.logprobs else None
    ask = decode_request(service, form, [ids], tokens, top, grammar=grammar)
    pieces = apart(service.pieces(ask, form.client(client)), begun=thinks)
    how = ChatFormat(service.logprobs if form.logprobs else None)
    return await openai_reply(request, form, pieces, how, choices=ask.choices)


def _text(message: Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    if any(part.type != "text" for part in message.content):
        raise ApiError(400, "Only parts of type text are taken here.", param="messages")
    return "".join(part.text or "" for part in message.content)


def _with_words(messages: Sequence[dict[str, str]], words: str) -> list[dict[str, str]]:
    """The conversation with ``words`` behind the user's last, or as a message of the user's."""
    *before, last = messages
    if last["role"] != "user":
        return [*messages, {"role": "user", "content": words.strip()}]
    return [*before, {**last, "content": last["content"] + words}]


def _problem(messages: Sequence[dict[str, str]]) -> str:
    """What a team works on: the user's words alone, or the conversation as text."""
    if len(messages) == 1:
        return messages[0]["content"]
    if len(messages) == 2 and messages[0]["role"] == "system":
        return "\n\n".join(message["content"] for message in messages if message["content"])
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)
