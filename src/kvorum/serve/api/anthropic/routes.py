"""``/v1/messages`` and its ``count_tokens``: Anthropic's form of a chat, a translation and nothing more.

A model NAME answers itself; NAME:PROGRAM-4 is a team of four, whose lines are the thinking.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from pydantic import JsonValue
from starlette.responses import JSONResponse, Response

from kvorum.jsontypes import Json, JsonObject
from kvorum.serve.api.anthropic.forms import CountForm, MessagesForm
from kvorum.serve.api.anthropic.output import MessageOutput
from kvorum.serve.api.chat_messages import problem
from kvorum.serve.api.chat_turn import chat_turn
from kvorum.serve.api.decode_request import decode_request
from kvorum.serve.api.event_stream import one_line, opened, unless_gone
from kvorum.serve.api.request_checks import Client, ServiceDep, find_model
from kvorum.serve.api.team_reply import start_team, team_pieces
from kvorum.serve.api.truncation import say_how_full
from kvorum.serve.asked_tools import asked_tools
from kvorum.serve.engine_thread.generator import Piece, Usage
from kvorum.serve.error_forms import MESSAGES, anthropic_error
from kvorum.serve.errors import ApiError, as_api_error
from kvorum.serve.reply_models.base import ReplyModel, errors
from kvorum.store.events import as_json

router = APIRouter(tags=["Anthropic"])
_REFUSALS = errors(404, 408, 409, 413, 415, 429)


class MessageReply(ReplyModel):
    """A message; streamed, the events of its making as server-sent events."""

    id: str
    type: str
    role: str
    model: str
    content: list[dict[str, JsonValue]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: dict[str, JsonValue]


class CountReply(ReplyModel):
    """How many tokens a prompt has."""

    input_tokens: int


@router.post(
    MESSAGES,
    response_model=None,
    responses={200: {"model": MessageReply, "content": {"text/event-stream": {}}}, **_REFUSALS},
    summary="Continue a conversation, in Anthropic's form",
)
async def messages(form: MessagesForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """The assistant's next turn: text and uses of tools."""
    form.check()
    named, plain, answer = find_model(service, form.model), form.decoding(), form.answer()
    if named.program is not None:
        place = "tools" if form.tools else answer and answer[1]
        if place:
            message = f"{place} is for the model itself: give its name without a program."
            raise ApiError(400, message, param=place)
        words = problem(form.chat())
        run = await start_team(service, named, plain, words, form.max_tokens, client, thinking=form.thinks)
        pieces, prompt = team_pieces(service, run, client), 0
    else:
        asked = asked_tools(form.asked())
        turn = await chat_turn(service, form.chat(), asked, answer=answer, thinking=form.thinks)
        ask = decode_request(service, plain, [turn.ids], form.max_tokens, None, grammar=turn.grammar, show=turn.show)
        pieces, prompt = turn.read(service.pieces(ask, client.named(plain.user))), len(turn.ids)
    head: dict[str, Json] = {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": form.model,
    }
    output = MessageOutput(form.stop_sequences)
    reply: Response
    if form.stream:
        reply = await opened(request.receive, service.ended, _stream(head, pieces, output, prompt))
    else:
        reply = await unless_gone(request.receive, service.ended, _whole(head, pieces, output))
    return say_how_full(reply, service, prompt) if named.program is None else reply


@router.post(f"{MESSAGES}/count_tokens", responses=_REFUSALS, summary="Count a prompt's tokens")
async def count_tokens(form: CountForm, service: ServiceDep) -> CountReply:
    """How many tokens a request's prompt has, tools and the words of the chat template included."""
    find_model(service, form.model)
    turn = await chat_turn(service, form.chat(), asked_tools(form.asked()), thinking=form.thinks)
    return CountReply(input_tokens=len(turn.ids))


async def _whole(head: JsonObject, pieces: AsyncGenerator[Piece, None], output: MessageOutput) -> Response:
    usage = Usage()
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Usage):
                usage = piece
            else:
                _ = [*output.take(piece)]
    _ = [*output.end()]
    stopped = {"stop_reason": output.reason, "stop_sequence": output.stopped}
    return JSONResponse({**head, "content": output.content, **stopped, "usage": _usage(usage)})


async def _stream(
    head: JsonObject, pieces: AsyncGenerator[Piece, None], output: MessageOutput, prompt: int
) -> AsyncGenerator[str, None]:
    """The events of a message. One that breaks off ends with an error, and without ``message_stop``."""
    begun, usage = False, Usage()
    nothing: dict[str, Json] = {"content": [], "stop_reason": None, "stop_sequence": None}
    started = {**head, **nothing, "usage": {"input_tokens": prompt, "output_tokens": 0}}
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if not begun:
                    begun = True
                    yield _sent({"type": "message_start", "message": started})
                if isinstance(piece, Usage):
                    usage = piece
                    continue
                for event in output.take(piece):
                    yield _sent(event)
        for event in output.end():
            yield _sent(event)
        delta: dict[str, Json] = {"stop_reason": output.reason, "stop_sequence": output.stopped}
        yield _sent({"type": "message_delta", "delta": delta, "usage": _usage(usage)})
        yield _sent({"type": "message_stop"})
    except GeneratorExit:
        raise
    except Exception as error:
        if not begun:
            raise
        yield _sent(anthropic_error(as_api_error(error)))


def _sent(event: JsonObject) -> str:
    return f"event: {event['type']}\ndata: {one_line(as_json(event))}\n\n"


def _usage(usage: Usage) -> dict[str, Json]:
    """As Anthropic counts: what was in the cache is no part of ``input_tokens``."""
    return {
        "input_tokens": usage.prompt - usage.cached,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion,
    }
