"""What the two OpenAI routes have in common: reading a request, and replying with its tokens, whole or as a stream.

How a reply is written down differs between the routes: each has a ``ChoiceFormat``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from fastapi import Request
from starlette.responses import JSONResponse, Response

from kvorum.engine.budget import Ledger
from kvorum.engine.decode import Token
from kvorum.jsontypes import Json, JsonObject
from kvorum.sampling.sampling import Sampling
from kvorum.serve.api.event_stream import DONE, event, opened, unless_gone
from kvorum.serve.engine_thread.generator import DecodeRequest, EchoedPrompt, NewToken, Piece, Usage
from kvorum.serve.engine_thread.scoring import Scored
from kvorum.serve.errors import ApiError
from kvorum.serve.request_models import ChatForm, CompletionBase
from kvorum.serve.service import Service, fresh_seed


def decode_request(
    service: Service,
    form: CompletionBase,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    *,
    top: int | None,
    echo: bool = False,
) -> DecodeRequest:
    """A request for plain decoding; ``top`` None: no logprobs. Raises ApiError."""
    limits = service.settings.limits
    choices = form.n or 1
    replies = choices * len(prompts)
    if replies > limits.choices:
        message = f"{replies} replies are more than the {limits.choices} that this server gives."
        raise ApiError(400, message, param="n")
    if tokens > limits.tokens:
        message = f"{tokens} tokens are more than the {limits.tokens} that this server gives."
        raise ApiError(400, message, param="max_tokens")
    for name in ("frequency_penalty", "presence_penalty", "logit_bias"):
        if getattr(form, name):
            raise ApiError(400, f"{name} is not taken here.", param=name)
    if form.kvorum.params or form.kvorum.budget is not None:
        raise ApiError(400, "Parameters and a budget are for programs, as in NAME:PROGRAM-4.", param="kvorum")
    if form.kvorum.into is not None and replies > 1:
        raise ApiError(400, "Only one reply can be written into a block.", param="kvorum.into")
    stop = [form.stop] if isinstance(form.stop, str) else form.stop or []
    return DecodeRequest(
        prompts,
        choices,
        tokens,
        sampling_of(form, temperature=1.0, top_p=1.0, seed=seed_of(form)),
        stop=[mark for mark in stop if mark],
        logprobs=top is not None,
        top=top or 0,
        echo=echo,
        items=form.kvorum.view,
        into=form.kvorum.into,
    )


def sampling_of(form: CompletionBase, *, temperature: float, top_p: float, seed: int | None = None) -> Sampling:
    """How the request wants its tokens picked; ``temperature`` and ``top_p`` where it says nothing."""
    return Sampling(
        temperature=temperature if form.temperature is None else form.temperature,
        top_p=top_p if form.top_p is None else form.top_p,
        top_k=max(0, form.top_k or 0),
        min_p=form.min_p or 0.0,
        seed=seed,
    )


def seed_of(form: CompletionBase) -> int:
    """The request's seed as one that draws take, or a fresh one."""
    return fresh_seed() if form.seed is None else form.seed % 2**63


def client_name(client: str, form: CompletionBase) -> str:
    """Whose turn it is: the address, and the user that the request names."""
    return f"{client} {form.user}" if form.user else client


# -- replying ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class DecodedChoice:
    """One of the replies, as far as it has come."""

    index: int
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    echoed: Scored | None = None

    @property
    def finish(self) -> str:
        """Why it ended, in OpenAI's words."""
        return finish_reason(self.tokens[-1].finish) if self.tokens else "length"


def finish_reason(reason: str | None) -> str:
    """A token's ``finish`` in OpenAI's words."""
    return "length" if reason == "length" else "stop"


class ChoiceFormat(Protocol):
    """How a route writes one of the replies down, without its index."""

    def whole(self, choice: DecodedChoice) -> JsonObject:
        """A complete reply with its text, logprobs and why it ended."""
        ...

    def parts(self, piece: NewToken | EchoedPrompt) -> Iterator[JsonObject]:
        """What a stream says of a new token or of an echoed prompt: nothing, one part or several."""
        ...


async def plain_reply(
    service: Service, form: CompletionBase, wanted: DecodeRequest, request: Request, client: str, how: ChoiceFormat
) -> Response:
    """Decode, and reply as ``how`` writes it. Ends when the client goes away. Raises ApiError."""
    pieces = service.pieces(wanted, client)
    if form.stream:
        return await opened(request, _stream(form, pieces, how))
    return await unless_gone(request, _whole(form, pieces, len(wanted.prompts) * wanted.choices, how))


async def _whole(form: CompletionBase, pieces: AsyncIterator[Piece], count: int, how: ChoiceFormat) -> Response:
    decoded, usage = [DecodedChoice(index) for index in range(count)], Usage()
    async for piece in pieces:
        if isinstance(piece, NewToken):
            decoded[piece.index].text += piece.token.text
            decoded[piece.index].tokens.append(piece.token)
        elif isinstance(piece, EchoedPrompt):
            decoded[piece.index].echoed = piece.scored
        else:
            usage = piece
    choices = [{"index": choice.index, **how.whole(choice)} for choice in decoded]
    return JSONResponse({**reply_head(form), "choices": choices, "usage": usage_reply(usage)})


async def _stream(
    form: CompletionBase, pieces: AsyncGenerator[Piece, None], how: ChoiceFormat
) -> AsyncGenerator[str, None]:
    head = reply_head(form)
    try:
        async for piece in pieces:
            if not isinstance(piece, Usage):
                for part in how.parts(piece):
                    yield event({**head, "choices": [{"index": piece.index, **part}]})
            elif form.stream_options.include_usage:
                yield event({**head, "choices": [], "usage": usage_reply(piece)})
        yield DONE
    finally:
        await pieces.aclose()


def usage_reply(usage: Usage) -> Json:
    """OpenAI's usage with the ledger in it."""
    return usage_of(usage.prompt, usage.completion, usage.ledger, cached=usage.cached)


def usage_of(prompt: int, completion: int, ledger: Ledger, *, cached: int = 0, run: str | None = None) -> Json:
    """Usage from its parts; ``run``: the id of the run that it is the usage of."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "kvorum": asdict(ledger) if run is None else {**asdict(ledger), "run": run},
    }


def reply_head(form: CompletionBase, number: str | None = None) -> dict[str, Json]:
    """What a reply, and every part of a streamed one, begins with; ``number``: makes its id, default a fresh one."""
    kind, name = ("chatcmpl", "chat.completion") if isinstance(form, ChatForm) else ("cmpl", "text_completion")
    return {
        "id": f"{kind}-{number or secrets.token_hex(12)}",
        "object": f"{name}.chunk" if form.stream and isinstance(form, ChatForm) else name,
        "created": int(time.time()),
        "model": form.model,
    }
