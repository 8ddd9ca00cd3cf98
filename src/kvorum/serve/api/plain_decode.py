"""What the two OpenAI routes have in common: reading a request, collecting its tokens, spelling usage and streams."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from kvorum.engine.budget import Ledger
from kvorum.engine.decode import Token
from kvorum.sampling.sampling import Sampling
from kvorum.serve.api.event_stream import EventStream, unless_gone
from kvorum.serve.api.request_models import Common
from kvorum.serve.engine_thread.generator import Ask, Echoed, Piece, Said, Usage
from kvorum.serve.engine_thread.scoring import Scored
from kvorum.serve.errors import ApiError, told
from kvorum.serve.service import Service, fresh_seed
from kvorum.store.runs import as_json


def client_of(request: Request, user: str | None = None) -> str:
    """Whose turn it is: an address, and the user that the request names."""
    return f"{request.client.host if request.client else ''} {user or ''}"


def ask(
    service: Service, form: Common, prompts: Sequence[Sequence[int]], tokens: int, top: int | None, echo: bool
) -> Ask:
    """A request for plain decoding; ``top`` None: no logprobs. Raises ApiError."""
    limits = service.settings.limits
    choices = form.n or 1
    if choices * len(prompts) > limits.choices:
        raise ApiError(
            400,
            f"{choices * len(prompts)} replies are more than the {limits.choices} that this server gives.",
            param="n",
        )
    if tokens > limits.tokens:
        raise ApiError(
            400, f"{tokens} tokens are more than the {limits.tokens} that this server gives.", param="max_tokens"
        )
    for name in ("frequency_penalty", "presence_penalty", "logit_bias"):
        if getattr(form, name):
            raise ApiError(400, f"{name} is not taken here.", param=name)
    if form.kvorum.params or form.kvorum.budget is not None:
        raise ApiError(400, "Parameters and a budget are for programs, such as NAME:hogwild-4.", param="kvorum")
    items = [item.model_dump(by_alias=True, exclude_none=True) for item in form.kvorum.view]
    check_items(items)
    if form.kvorum.into is not None and choices * len(prompts) > 1:
        raise ApiError(400, "Only one reply can be written into a block.", param="kvorum.into")
    seed = fresh_seed() if form.seed is None else form.seed
    sampling = Sampling(
        temperature=1.0 if form.temperature is None else form.temperature,
        top_p=1.0 if form.top_p is None else form.top_p,
        top_k=max(0, form.top_k or 0),
        min_p=form.min_p or 0.0,
        seed=seed % 2**63,
    )
    stop = [form.stop] if isinstance(form.stop, str) else list(form.stop or ())
    return Ask(
        prompts, choices, tokens, sampling, [mark for mark in stop if mark], top is not None, top or 0, echo, items,
        form.kvorum.into,
    )  # fmt: skip


def check_items(items: Sequence[dict[str, Any]]) -> None:
    """Each item of a view is a span of a block or a gap. Raises ApiError."""
    for item in items:
        if ("block" in item) == ("gap" in item) or ("gap" in item and len(item) > 1):
            raise ApiError(400, "An item of a view is {block, from?, to?} or {gap}.", param="view")


# -- collecting ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Spoken:
    """One choice, as far as it has come."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    echoed: Scored | None = None

    @property
    def finish(self) -> str:
        """Why it ended, in OpenAI's words."""
        return finish(self.tokens[-1].finish) if self.tokens else "length"


def finish(reason: str | None) -> str:
    """A token's ``finish`` in OpenAI's words."""
    return "length" if reason == "length" else "stop"


async def collect(pieces: AsyncIterator[Piece], choices: int) -> tuple[list[Spoken], Usage]:
    """All choices whole."""
    spoken, usage = [Spoken() for _ in range(choices)], Usage()
    async for piece in pieces:
        if isinstance(piece, Said):
            spoken[piece.index].text += piece.token.text
            spoken[piece.index].tokens.append(piece.token)
        elif isinstance(piece, Echoed):
            spoken[piece.index].echoed = piece.scored
        else:
            usage = piece
    return spoken, usage


def usage_reply(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage with the ledger in it."""
    return usage_of(usage.prompt, usage.completion, usage.ledger, usage.cached)


def usage_of(prompt: int, completion: int, ledger: Ledger, cached: int = 0, **more: Any) -> dict[str, Any]:
    """Usage from its parts."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "kvorum": ledger.as_dict() | more,
    }


# -- streams -------------------------------------------------------------------------------------------------------


def event(value: Any) -> str:
    """A server-sent event."""
    return f"data: {as_json(value)}\n\n"


async def opened(request: Request, source: AsyncGenerator[str, None]) -> EventStream:
    """A stream whose first event is there: what is refused before that has a status of its own."""
    try:
        first = await unless_gone(request, anext(source))
    except BaseException:
        await source.aclose()
        raise
    return EventStream(guarded(source), first)


async def guarded(source: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """An error behind the first event is told as an event."""
    try:
        async for text in source:
            yield text
    except ApiError as error:
        yield event(error.body)
    except Exception as error:
        yield event(told(error).body)
    finally:
        await source.aclose()


def stamp(kind: str, object_name: str, model: str, number: str) -> dict[str, Any]:
    """What every piece of a reply begins with."""
    return {"id": f"{kind}-{number}", "object": object_name, "created": int(time.time()), "model": model}
