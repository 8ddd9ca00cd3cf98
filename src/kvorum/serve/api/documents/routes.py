"""``/v1/ask`` and ``/v1/fields``: questions of documents side by side, and the fields of a form at once.

A document is a text in the request or a block that holds one. ``docs/serve-documents.md`` has examples.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import asdict

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from kvorum.harness.asked import Answer, Asked
from kvorum.harness.forms.filled import FilledForm
from kvorum.jsontypes import Json, JsonObject
from kvorum.programs import find
from kvorum.runs.parameters import Value
from kvorum.sampling.sampling import Sampling
from kvorum.serve.api.documents.forms import (
    AskForm,
    AskReply,
    Document,
    DocumentBase,
    DocumentUsage,
    FieldsForm,
    FieldsReply,
)
from kvorum.serve.api.event_stream import DONE, event, opened, unless_gone
from kvorum.serve.api.request_checks import Client, ServiceDep, find_model
from kvorum.serve.engine_thread.fan_out import Done, FanOut
from kvorum.serve.errors import ApiError, within
from kvorum.serve.keys.caller import Caller
from kvorum.serve.reply_models.base import errors
from kvorum.serve.service import Service
from kvorum.store.events import Event, note_data

router = APIRouter(tags=["Documents"])
_AROUND = 192
"""Tokens that the words around a question, and a quotation, take at most."""
_FIELD = 8
"""A list may have so many times the tokens of a field."""


_REFUSALS = errors(404, 408, 409, 413, 415, 429)


@router.post(
    "/v1/ask",
    response_model=None,
    responses={200: {"model": AskReply, "content": {"text/event-stream": {}}}, **_REFUSALS},
    summary="Ask many questions",
)
async def ask(form: AskForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """Each question gets an answer from the documents, which are encoded once; all are answered side by side."""
    tokens = _reply_tokens(service, form)
    texts = {name: await _text(service, one, f"documents.{name}", client) for name, one in form.documents.items()}
    longest = max(len(question.encode()) for question in form.questions)
    row = longest + len((form.rules or "").encode()) + tokens + _AROUND
    params: dict[str, Value] = {
        "documents": texts,
        "questions": form.questions,
        "tokens": tokens,
        "rules": form.rules,
        "quote": form.quote,
    }
    work = FanOut(
        find("ask"),
        "\n".join(form.questions),
        params,
        texts,
        form.keep,
        min(form.rows, len(form.questions)),
        await _tokens(service, *texts.values(), *form.questions),
        row,
        Sampling(temperature=form.temperature),
        form.seed,
    )
    return await _reply(service, request, form, work, client, _asked, _AnswerEvents())


@router.post(
    "/v1/fields",
    response_model=None,
    responses={200: {"model": FieldsReply, "content": {"text/event-stream": {}}}, **_REFUSALS},
    summary="Fill a form from a document",
)
async def fields(form: FieldsForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """Each leaf of the schema is written under a grammar of its own, all at once; the result fits the schema."""
    tokens = _reply_tokens(service, form)
    text = await _text(service, form.document, "document", client)
    params: dict[str, Value] = {
        "schema": json.dumps(form.form, ensure_ascii=False),
        "sees": form.sees,
        "confidence": form.confidence,
        "tokens": tokens,
    }
    work = FanOut(
        find("fields"),
        text,
        params,
        {"text": text},
        form.keep,
        form.rows,
        await _tokens(service, text),
        _FIELD * tokens + _AROUND,
        Sampling(temperature=form.temperature),
        form.seed,
    )
    return await _reply(service, request, form, work, client, _filled, _field_events)


async def _text(service: Service, given: Document, place: str, client: Caller) -> str:
    """A document's text. Raises ApiError: it is empty, or there is no such block."""
    text = given if isinstance(given, str) else await service.thread.call(service.blocks.words, given.block, client)
    if not text.strip():
        raise ApiError(400, f"{place} is empty; leave it out, or say what stands in it.", param=place)
    return text


def _reply_tokens(service: Service, form: AskForm | FieldsForm) -> int:
    """How many tokens an answer may have: what is asked for, or the usual number, as far as the server allows it."""
    most = service.settings.limits.tokens
    if form.tokens is None:
        return min(form.usual_tokens, most)
    within(form.tokens, most, "tokens", "tokens")
    return form.tokens


async def _tokens(service: Service, *texts: str) -> int:
    """Tokens of texts that all rows together see. Raises ApiError for more than a prompt may have."""
    counts = [len(await service.encode(text)) for text in texts]
    most = service.settings.limits.prompt_tokens
    if sum(counts) > most:
        message = f"The texts have {sum(counts)} tokens together, more than the {most} that this server takes."
        raise ApiError(400, message, code="context_length_exceeded")
    return sum(counts)


Told = Callable[[Service, Done], BaseModel]
Events = Callable[[Event], Iterator[JsonObject]]


async def _reply(
    service: Service, request: Request, form: DocumentBase, work: FanOut, client: Caller, told: Told, events: Events
) -> Response:
    """The whole reply, or what is written as it comes and then the reply. It ends when the client goes away."""
    if form.model is not None and find_model(service, form.model).program is not None:
        raise ApiError(400, f"Give {service.name} itself, without a program.", param="model")
    source = service.fan_out(work, client.named(form.user))
    if form.stream:
        return await opened(request.receive, service.ended, _stream(service, source, told, events))
    return await unless_gone(request.receive, service.ended, _whole(service, source, told))


async def _whole(service: Service, source: AsyncGenerator[Event | Done, None], told: Told) -> Response:
    async with aclosing(source):
        async for piece in source:
            if isinstance(piece, Done):
                return JSONResponse(told(service, piece).model_dump())
    raise ApiError(500, "The program ended without a result.", kind="server_error")


async def _stream(
    service: Service, source: AsyncGenerator[Event | Done, None], told: Told, events: Events
) -> AsyncGenerator[str, None]:
    async with aclosing(source):
        async for piece in source:
            if isinstance(piece, Done):
                yield event({"type": "result", **told(service, piece).model_dump()})
            else:
                for one in events(piece):
                    yield event(one)
        yield DONE


class _AnswerEvents:
    """What events say of answers: more of one's text, or that one is whole. Rows are called q1, q2 and so on.

    What a row writes when its answer is whole chooses the passage that supports it, and is in the result alone.
    """

    def __init__(self) -> None:
        self._whole: set[int] = set()

    def __call__(self, given: Event) -> Iterator[JsonObject]:
        if given["event"] == "tick":
            for row in given["rows"]:
                index = int(row["worker"][1:]) - 1
                if row["text"] and index not in self._whole:
                    yield {"type": "answer.delta", "index": index, "delta": row["text"]}
        elif given["event"] == "note" and given["kind"] == "answer":
            data = note_data(given)
            index = int(str(data["worker"])[1:]) - 1
            self._whole.add(index)
            yield {"type": "answer.done", "index": index, "text": data["text"], "finish": data["finish"]}


def _field_events(given: Event) -> Iterator[JsonObject]:
    """What an event says of fields: more of one's JSON, or its value."""
    if given["event"] == "tick":
        for row in given["rows"]:
            if row["text"]:
                yield {"type": "field.delta", "name": row["worker"], "delta": row["text"]}
    elif given["event"] == "note" and given["kind"] == "field":
        data = note_data(given)
        yield {"type": "field.done", "name": data["worker"], "value": data["value"], "note": data["note"]}


def _asked(service: Service, done: Done) -> AskReply:
    found: Asked = done.result.product
    answers = [_answer(answer) for answer in found.answers]
    return AskReply(model=service.name, answers=answers, documents=dict(done.blocks), usage=_usage(done))


def _answer(answer: Answer) -> dict[str, Json]:
    """An answer as JSON; its row's name says nothing to a client."""
    told = {key: value for key, value in asdict(answer).items() if key not in ("worker", "quote")}
    if (quote := answer.quote) is None:
        return {**told, "quote": None}
    return {**told, "quote": {**asdict(quote), "also": [list(place) for place in quote.also]}}


def _filled(service: Service, done: Done) -> FieldsReply:
    found: FilledForm = done.result.product
    return FieldsReply(
        model=service.name,
        value=found.value,
        fields=[asdict(one) for one in found.fields],
        problems=found.problems,
        documents=dict(done.blocks),
        usage=_usage(done),
    )


def _usage(done: Done) -> DocumentUsage:
    ledger = done.result.ledger
    return DocumentUsage(
        input_tokens=ledger.prefill,
        input_tokens_details={"cached_tokens": done.loaded},
        output_tokens=ledger.decoded,
        total_tokens=ledger.prefill + ledger.decoded,
        kvorum=ledger,
    )
