"""``/v1/responses``: a conversation to its next turn, kept so that it goes on from the turn's id.

A model NAME answers itself; NAME:PROGRAM-4 is a team of four, whose workers are agents below the root.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from kvorum.jsontypes import Json, JsonObject
from kvorum.runs.steering import Command
from kvorum.serve.api.chat_messages import problem, with_words
from kvorum.serve.api.chat_turn import chat_turn
from kvorum.serve.api.decode_request import decode_request
from kvorum.serve.api.event_stream import EventStream, opened, unless_gone
from kvorum.serve.api.request_checks import AllowedDep, Client, NamedModel, ServiceDep, find_model
from kvorum.serve.api.responses.background import begin
from kvorum.serve.api.responses.forms import ResponseForm
from kvorum.serve.api.responses.going_on import ids_behind
from kvorum.serve.api.responses.items import as_messages, distinct, input_items
from kvorum.serve.api.responses.output import last_words
from kvorum.serve.api.responses.replies import InputTokens, ItemList, ResponseDeleted, ResponseReply
from kvorum.serve.api.responses.reply import LiveResponse, stream, whole
from kvorum.serve.api.responses.stored import (
    conversation,
    dropped_before,
    found_response,
    output_items,
    stored_response,
)
from kvorum.serve.api.team_answer import shared_tokens, written_down
from kvorum.serve.api.team_reply import start_team, team_pieces
from kvorum.serve.api.truncation import fits, fitting_turn, reply_room, say_how_full
from kvorum.serve.asked_tools import AskedTools, asked_tools
from kvorum.serve.engine_thread.generator import Piece
from kvorum.serve.errors import ApiError, missing, within
from kvorum.serve.keys.caller import Caller
from kvorum.serve.reply_models.base import errors
from kvorum.serve.request_models.completions import Extra
from kvorum.serve.responding import Responding
from kvorum.serve.service import Service
from kvorum.store.responses import StoredResponse

router = APIRouter(tags=["Responses"])
_CANCELLED = 20.0
"""Seconds that a response may take to end when it is cancelled."""
ResponseId = Annotated[str, Path(max_length=80)]


@router.post(
    "/v1/responses",
    response_model=None,
    responses={
        200: {"model": ResponseReply, "content": {"text/event-stream": {}}},
        **errors(404, 408, 409, 413, 415, 429),
    },
    summary="Answer, with a memory",
)
async def create(form: ResponseForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """The next turn of a conversation. It is stored unless ``store`` is false, and the conversation goes on from its id
    with ``previous_response_id``. Where that one is still being made by a program, what the user says is told its
    workers, and the reply is the same run's, as it ends."""
    form.check()
    named = find_model(service, form.model)
    form.check_agents(None if named.program is None else named.workers)
    running = service.responding.get(form.previous_response_id or "")
    if running is not None and running.run and running.owner == client.owner:
        return await _added(service, form, running, request, client)
    before, items = await conversation(service, form.previous_response_id, form.input, client)
    asker = client.named(form.user)
    dropped = 0
    if named.program is not None:
        live, pieces = await _team(service, named, form, items, asker)
    else:
        live, pieces, dropped = await _alone(service, form, before, items, asker)
    prompt = len(live.ids)
    reply = await _replied(service, form, request, live, pieces)
    return say_how_full(reply, service, prompt, dropped) if named.program is None else reply


@router.post("/v1/responses/input_tokens", responses=errors(404, 408, 413, 415), summary="Count a prompt's tokens")
async def input_tokens(form: ResponseForm, service: ServiceDep, client: Client) -> InputTokens:
    """How many tokens the prompt of such a response has, with the conversation before it, its instructions, its tools
    and the words of the chat template. Nothing is written or stored."""
    form.check()
    find_model(service, form.model)
    _, items = await conversation(service, form.previous_response_id, form.input, client)
    messages, asked = as_messages(form.instructions, items), asked_tools(form.asked())
    turn = await chat_turn(service, messages, asked, answer=form.answer(), thinking=form.thinks)
    return InputTokens(input_tokens=len(turn.ids))


async def _replied(
    service: Service, form: ResponseForm, request: Request, live: LiveResponse, pieces: AsyncGenerator[Piece, None]
) -> Response:
    """The response as it is made, or whole; in the background as it is queued."""
    if form.background:
        told = await begin(request.app.state.server, service.name, live, pieces)
        if form.stream:
            return await opened(request.receive, service.ended, told.behind(-1))
        return JSONResponse(live.body())
    service.responding[live.id] = live.state

    def over() -> None:
        service.responding.pop(live.id, None)

    if form.stream:
        return await opened(request.receive, service.ended, stream(live, pieces, over))
    try:
        return JSONResponse(await unless_gone(request.receive, service.ended, whole(live, pieces)))
    finally:
        over()


async def _added(
    service: Service, form: ResponseForm, running: Responding, request: Request, client: Caller
) -> Response:
    """A further message of the user's to a program at work, which is stopped when nobody waits for either reply."""
    before = await stored_response(service, form.previous_response_id or "", client)
    further = input_items(form.input)
    told = as_messages(None, further)
    if form.model != before.body["model"] or any(one["role"] != "user" for one in told):
        message = "To a program that is at work only the user's words can be added, with the same model name."
        raise ApiError(400, message, param="model" if form.model != before.body["model"] else "input")
    if form.instructions or form.tools or form.text.format.type != "text":
        message = "Instructions, tools and formats cannot be changed while a program is at work; wait for its reply."
        raise ApiError(400, message, param="instructions" if form.instructions else "tools")
    words = "\n\n".join(str(one["content"]) for one in told)
    if not words.strip():
        raise ApiError(400, "There is nothing to tell the program; say what to add.", param="input")
    within(len(words), 4 * service.settings.limits.prompt_tokens, "characters", "input")
    await service.thread.call(service.runs.command, running.run, Command("share", "", words))
    live = LiveResponse(
        form,
        distinct([*before.input, *further]),
        [],
        find_model(service, form.model).program,
        service.responses,
        service.engine.ends,
        client.owner,
    )
    live.state.run = running.run
    return await _replied(service, form, request, live, team_pieces(service, running.run, client))


async def _alone(
    service: Service, form: ResponseForm, before: StoredResponse | None, items: list[JsonObject], client: Caller
) -> tuple[LiveResponse, AsyncGenerator[Piece, None], int]:
    """The model's own reply, and how many messages were left out."""
    asked, messages = asked_tools(form.asked()), as_messages(form.instructions, items)
    make = partial(chat_turn, service, asked=asked, answer=form.answer(), thinking=form.thinks)
    auto = form.truncation == "auto"
    if auto:
        turn, dropped = await fitting_turn(service, messages, form.max_output_tokens, make)
    else:
        turn, dropped = await make(messages), 0
    if before is not None and before.ids and _told_alike(form, before):
        behind = await _behind(service, before, asked, messages)
        if behind is not None and not (auto and not fits(service, len(behind), form.max_output_tokens)):
            turn, dropped = replace(turn, ids=service.ids(behind)), dropped_before(before)
    usual = reply_room if auto else Service.reply_tokens
    tokens = form.max_output_tokens or usual(service, len(turn.ids))
    ask = decode_request(service, form.decoding(tokens), [turn.ids], tokens, None, grammar=turn.grammar, show=turn.show)
    ask.usage.dropped = dropped
    live = LiveResponse(form, items, list(turn.ids), None, service.responses, service.engine.ends, client.owner)
    return live, turn.read(service.pieces(ask, client)), dropped


async def _behind(
    service: Service, before: StoredResponse, asked: AskedTools, messages: list[dict[str, Json]]
) -> list[int] | None:
    """The ids of the same turn behind the tokens of the last one, as they were; None where that cannot be."""
    instructions = before.body.get("instructions")
    earlier = as_messages(str(instructions) if instructions else None, before.input)
    tools, form = asked.tools, service.calls.form
    replied = as_messages(None, last_words(output_items(before)))
    if len(replied) != 1 or before.body["status"] != "completed":
        return None
    return await asyncio.to_thread(ids_behind, service.engine, form, tools, before.ids, earlier, messages)


def _told_alike(form: ResponseForm, before: StoredResponse) -> bool:
    """Whether the model is told the same instructions and tools as in the last turn, which stand before all words."""
    tools = [tool.model_dump(exclude_none=True) for tool in form.tools or ()]
    known = before.body.get("tools")
    earlier = known if isinstance(known, list) else []
    return (
        form.instructions == before.body.get("instructions")
        and len(tools) == len(earlier)
        and all(
            isinstance(old, dict) and all(old.get(key) == value for key, value in new.items())
            for new, old in zip(tools, earlier, strict=True)
        )
    )


async def _team(
    service: Service, named: NamedModel, form: ResponseForm, items: list[JsonObject], client: Caller
) -> tuple[LiveResponse, AsyncGenerator[Piece, None]]:
    """A program's run: its workers' lines are messages of agents, its answer the root's, held to the format."""
    if form.tools:
        raise ApiError(400, "Tools are for the model itself: give its name without a program.", param="tools")
    asked, messages, answer = asked_tools(form.asked()), as_messages(form.instructions, items), form.answer()
    thoughts, last = (form.max_output_tokens, None) if answer is None else shared_tokens(form.max_output_tokens)

    async def last_turn(found: str) -> AsyncGenerator[Piece, None]:
        turn = await chat_turn(service, with_words(messages, found), asked, answer=answer, thinking=form.thinks)
        most = last or service.reply_tokens(len(turn.ids))
        plain = form.decoding(most).model_copy(update={"kvorum": Extra()})
        ask = decode_request(service, plain, [turn.ids], most, None, grammar=turn.grammar, show=turn.show)
        return turn.read(service.pieces(ask, client))

    if answer is not None:
        await chat_turn(service, messages, asked, answer=answer)  # refuses what cannot be, now
    words, plain = problem(messages), form.decoding(None)
    run = await start_team(service, named, plain, words, thoughts, client, thinking=form.thinks)
    live = LiveResponse(form, items, [], named.program, service.responses, service.engine.ends, client.owner)
    live.state.run = run
    pieces = team_pieces(service, run, client)
    return live, pieces if answer is None else written_down(pieces, last_turn)


@router.get("/v1/responses/{response}", response_model=ResponseReply, responses=errors(404, 409))
async def get(
    response: ResponseId,
    request: Request,
    server: AllowedDep,
    client: Client,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1)] = -1,
    include_obfuscation: bool = False,
) -> Response:
    """A stored response as it is now; ``stream``: of one in the background the events behind number
    ``starting_after``, and those to come."""
    found = await found_response(server.shared, response, client)
    if not stream:
        return JSONResponse(found.body)
    told = server.shared.told.get(response)
    if told is None or told.owner != client.owner:
        message = "The events of a response are kept for a while where it is made in the background; this one has none."
        raise ApiError(400, message, param="stream")
    return EventStream(told.behind(starting_after))


@router.delete("/v1/responses/{response}", responses=errors(404))
async def delete(response: ResponseId, server: AllowedDep, client: Client) -> ResponseDeleted:
    """Forget a stored response; those that go on from it keep what they were given. One that is being made ends."""
    live = server.shared.responding.get(response)
    if live is not None and live.owner == client.owner:
        live.deleted = True
        live.stop()
    if not await asyncio.to_thread(server.shared.responses.delete, response, client.owner):
        raise missing(f"There is no response {response!r}.")
    return ResponseDeleted(id=response)


@router.post("/v1/responses/{response}/cancel", response_model=ResponseReply, responses=errors(404, 409))
async def cancel(response: ResponseId, server: AllowedDep, client: Client) -> Response:
    """End a response that is being made; what it has said so far stays."""
    live = server.shared.responding.get(response)
    if live is None or live.owner != client.owner:
        found = await found_response(server.shared, response, client)
        if found.body["status"] == "cancelled":  # the same again
            return JSONResponse(found.body)
        message = f"Only a response in progress can be cancelled; this one is {found.body['status']}."
        raise ApiError(400, message, param="response_id")
    live.stop()
    with suppress(TimeoutError):  # whoever does not read its stream holds it up
        await asyncio.wait_for(live.over.wait(), _CANCELLED)
    return JSONResponse(live.body or (await found_response(server.shared, response, client)).body)


@router.get("/v1/responses/{response}/input_items", responses=errors(404, 409))
async def items(
    response: ResponseId,
    server: AllowedDep,
    client: Client,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=80)] = None,
) -> ItemList:
    """The items that a response answers, those of earlier turns too, by default the latest first."""
    found = (await found_response(server.shared, response, client)).input
    there = found if order == "asc" else found[::-1]
    ids = [str(item["id"]) for item in there]
    start = ids.index(after) + 1 if after in ids else 0
    page = there[start : start + limit]
    first, last = (str(page[0]["id"]), str(page[-1]["id"])) if page else ("", "")
    return ItemList(
        data=[dict(item) for item in page], first_id=first, last_id=last, has_more=start + limit < len(there)
    )
