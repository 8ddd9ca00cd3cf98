"""``/v1/chat/completions``: a conversation to its next message.

A model NAME is plain decoding, NAME:PROGRAM-4 a team of four (``team_reply``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from kvorum.jsontypes import Json
from kvorum.sampling.grammar import Grammar
from kvorum.serve.answer_grammar import asked_grammar
from kvorum.serve.api.chat_messages import problem, template_messages, with_words
from kvorum.serve.api.chat_turn import chat_turn
from kvorum.serve.api.decode_request import decode_request
from kvorum.serve.api.openai_reply import openai_reply
from kvorum.serve.api.request_checks import Client, NamedModel, ServiceDep, find_model
from kvorum.serve.api.team_answer import shared_tokens, written_down
from kvorum.serve.api.team_reply import start_team, team_pieces
from kvorum.serve.api.truncation import fitting_turn, reply_room, say_how_full
from kvorum.serve.asked_tools import AskedTools, asked_tools
from kvorum.serve.choice_format import ChatFormat
from kvorum.serve.engine_thread.generator import Piece
from kvorum.serve.errors import ApiError
from kvorum.serve.keys.caller import Caller
from kvorum.serve.reply_models.base import errors
from kvorum.serve.reply_models.completions import ChatReply
from kvorum.serve.request_models.chat import ChatForm
from kvorum.serve.request_models.completions import Extra
from kvorum.serve.service import Service

router = APIRouter(tags=["OpenAI"])


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
    named, asked = find_model(service, form.model), asked_tools(form)
    if form.top_logprobs and not form.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs=true.", param="top_logprobs")
    given = form.max_completion_tokens if form.max_completion_tokens is not None else form.max_tokens
    if given == 0:
        raise ApiError(400, "A reply has at least 1 token.", param="max_completion_tokens")
    messages, answer = template_messages(form.messages), asked_grammar(form)
    how = ChatFormat(service.logprobs if form.logprobs else None, tools=bool(asked.usable))
    if named.program is not None:
        run, pieces = await _team(service, named, form, messages, asked, answer, given, client)
        return await openai_reply(request, form, pieces, how, number=run)
    make = partial(chat_turn, service, asked=asked, answer=answer, thinking=form.thinking)
    if form.truncation == "auto":
        turn, dropped = await fitting_turn(service, messages, given, make)
        tokens = given or reply_room(service, len(turn.ids))
    else:
        turn, dropped = await make(messages), 0
        tokens = given or service.reply_tokens(len(turn.ids))
    top = (form.top_logprobs or 0) if form.logprobs else None
    ask = decode_request(service, form, [turn.ids], tokens, top, grammar=turn.grammar, show=turn.show)
    ask.usage.dropped = dropped
    pieces = turn.read(service.pieces(ask, client.named(form.user)))
    reply = await openai_reply(request, form, pieces, how, choices=ask.choices)
    return say_how_full(reply, service, len(turn.ids), dropped)


async def _team(
    service: Service,
    named: NamedModel,
    form: ChatForm,
    messages: list[dict[str, Json]],
    asked: AskedTools,
    answer: tuple[Grammar, str] | None,
    tokens: int | None,
    client: Caller,
) -> tuple[str, AsyncGenerator[Piece, None]]:
    """The run of a program, and what it says; a form or tools are for its answer."""
    words = problem(messages)
    if answer is None and not asked.usable:
        run = await start_team(service, named, form, words, tokens, client, thinking=form.thinking)
        return run, team_pieces(service, run, client)

    async def last_turn(found: str) -> AsyncGenerator[Piece, None]:
        turn = await chat_turn(service, with_words(messages, found), asked, answer=answer, thinking=form.thinking)
        plain, most = form.model_copy(update={"kvorum": Extra()}), last or service.reply_tokens(len(turn.ids))
        ask = decode_request(service, plain, [turn.ids], most, None, grammar=turn.grammar, show=turn.show)
        return turn.read(service.pieces(ask, client.named(form.user)))

    thoughts, last = shared_tokens(tokens)
    await chat_turn(service, messages, asked, answer=answer, thinking=form.thinking)  # refuses what cannot be, now
    run = await start_team(service, named, form, words, thoughts, client, thinking=form.thinking)
    return run, written_down(team_pieces(service, run, client), last_turn)
