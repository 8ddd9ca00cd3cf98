"""A reply of the OpenAI routes, whole or as a stream, from what plain decoding or a program says.

How its choices are written down differs between the routes: each has a ``ChoiceFormat``.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kvorum.jsontypes import Json, JsonObject
from kvorum.serve.api.event_stream import DONE, event, event_of, opened, unless_gone
from kvorum.serve.choice_format import ChoiceFormat
from kvorum.serve.engine_thread.generator import Piece, ReplyPart, Usage
from kvorum.serve.request_models.completions import CompletionBase
from kvorum.store.events import as_json


async def openai_reply(
    request: Request,
    form: CompletionBase,
    pieces: AsyncGenerator[Piece, None],
    how: ChoiceFormat,
    *,
    choices: int = 1,
    number: str | None = None,
) -> Response:
    """What ``pieces`` say, written as ``how`` does. It ends when the client goes away.

    ``choices``: how many replies there are. ``number``: makes the reply's id, by default a fresh one.
    """
    head: dict[str, Json] = {
        "id": f"{how.prefix}-{number or secrets.token_hex(12)}",
        "object": how.chunk if form.stream else how.kind,
        "created": int(time.time()),
        "model": form.model,
    }
    ended: asyncio.Event = request.app.state.server.shared.ended
    if not form.stream:
        return await unless_gone(request.receive, ended, _whole(head, pieces, how, choices))
    if form.stream_options.include_usage:
        head["usage"] = None  # but for the last chunk
    return await opened(request.receive, ended, _stream(head, pieces, how))


async def _whole(head: JsonObject, pieces: AsyncIterator[Piece], how: ChoiceFormat, choices: int) -> Response:
    parts: list[list[ReplyPart]] = [[] for _ in range(choices)]
    usage = Usage()
    async for piece in pieces:
        if isinstance(piece, Usage):
            usage = piece
        else:
            parts[piece.index].append(piece)
    written = [{"index": index, **how.whole(_join(index, of_one))} for index, of_one in enumerate(parts)]
    return JSONResponse({**head, "choices": written, "usage": _usage(usage)})


def _join(index: int, parts: list[ReplyPart]) -> ReplyPart:
    return ReplyPart(
        index,
        "".join(part.text for part in parts),
        parts[-1].finish,
        [token for part in parts for token in part.tokens],
        parts[0].echoed,
        "".join(part.reasoning for part in parts),
        [read for part in parts for read in part.calls],
    )


async def _stream(
    head: JsonObject, pieces: AsyncGenerator[Piece, None], how: ChoiceFormat
) -> AsyncGenerator[str, None]:
    choice = event_of(head, "choices")
    try:
        async for piece in pieces:
            if not isinstance(piece, Usage):
                for written in how.pieces(piece):
                    yield choice(as_json({"index": piece.index, **written}))
            elif "usage" in head:
                yield event({**head, "choices": [], "usage": _usage(piece)})
        yield DONE
    finally:
        await pieces.aclose()


def _usage(usage: Usage) -> JsonObject:
    """OpenAI's usage with the ledger in it, the run's id where it is one's, and how many messages were left out."""
    ledger = asdict(usage.ledger)
    extra: dict[str, Json] = {} if usage.run is None else {"run": usage.run}
    if usage.dropped:
        extra["dropped_messages"] = usage.dropped
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {
            "accepted_prediction_tokens": usage.ledger.accepted,
            "rejected_prediction_tokens": max(0, usage.ledger.drafted - usage.ledger.accepted),
        },
        "kvorum": {**ledger, **extra},
    }
