"""``/v1/embeddings``: the mean of a text's last hidden states, in OpenAI's form."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from fastapi import APIRouter, Request
from torch import Tensor

from kvorum.serve.api.event_stream import unless_gone
from kvorum.serve.api.request_checks import Client, ServiceDep, find_model
from kvorum.serve.errors import ApiError, within
from kvorum.serve.reply_models.base import errors
from kvorum.serve.reply_models.embeddings import EmbeddingItem, EmbeddingKind, EmbeddingReply, EmbeddingUsage
from kvorum.serve.request_models.embeddings import EmbeddingForm
from kvorum.serve.service import Service

router = APIRouter(tags=["OpenAI"])
MOST_INPUTS = 2048
"""Of one request, as OpenAI's embeddings have it."""
MOST_TOKENS = 300_000
"""Of all inputs of a request, as there."""


@router.post("/v1/embeddings", responses=errors(404, 408, 413, 415, 429), summary="Embed texts")
async def embeddings(form: EmbeddingForm, request: Request, service: ServiceDep, client: Client) -> EmbeddingReply:
    """Of each input the mean of its tokens' last hidden states, of length 1. The model was not trained to embed."""
    if find_model(service, form.model).program is not None:
        raise ApiError(400, f"Embeddings are the model's own: give {service.name}, without a program.", param="model")
    width = service.engine.shape.hidden
    if form.dimensions not in (None, width):
        message = f"This model's embeddings have {width} dimensions, none of which can be left out: leave it away."
        raise ApiError(400, message, param="dimensions")
    texts = await _texts(service, form.input)
    found = await unless_gone(
        request.receive, service.ended, service.thread.call(service.embedder.embed, texts, client.named(form.user))
    )
    tokens = sum(map(len, texts))
    coded = [_base64(line) if form.encoding_format == "base64" else line.tolist() for line in found]
    return EmbeddingReply(
        data=[EmbeddingItem(index=at, embedding=line) for at, line in enumerate(coded)],
        model=form.model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        kvorum=EmbeddingKind(dimensions=width),
    )


def _base64(line: Tensor) -> str:
    return base64.b64encode(line.numpy().astype("<f4").tobytes()).decode("ascii")


async def _texts(service: Service, given: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
    """The token ids of each input. Raises ApiError for none, too many, and an empty one."""
    inputs = _inputs(given)
    within(len(inputs), MOST_INPUTS, "inputs", "input")
    texts = []
    for one in inputs:
        texts.append(await service.encode(one, "input") if isinstance(one, str) else service.ids(one, "input"))
        if not one or not texts[-1]:
            raise ApiError(400, "An input is empty; leave it out.", param="input")
    within(sum(map(len, texts)), MOST_TOKENS, "tokens", "input")
    return texts


def _inputs(given: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    if isinstance(given, str):
        return [given]
    ids = [part for part in given if isinstance(part, int)]
    if ids:
        return [ids]
    if not given:
        raise ApiError(400, "There is no input; give a text.", param="input")
    return [one for one in given if not isinstance(one, int)]
