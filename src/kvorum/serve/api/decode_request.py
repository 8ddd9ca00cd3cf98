"""From a request's body to what plain decoding is asked for, within the server's limits."""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.sampling.grammar import Grammar
from kvorum.serve.engine_thread.generator import DecodeRequest
from kvorum.serve.errors import ApiError, within
from kvorum.serve.request_models.completions import CompletionBase
from kvorum.serve.service import Service


def decode_request(
    service: Service,
    form: CompletionBase,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    top: int | None,
    *,
    echo: bool = False,
    grammar: Grammar | None = None,
    show: frozenset[int] = frozenset(),
) -> DecodeRequest:
    """A request for plain decoding; ``top`` None: no logprobs. Raises ApiError."""
    limits, extra = service.settings.limits, form.kvorum
    choices = form.n or 1
    replies = choices * len(prompts)
    within(replies, limits.choices, "replies", "n")
    within(tokens, limits.tokens, "tokens", "max_tokens")
    if extra.params or extra.budget is not None:
        raise ApiError(400, "Parameters and a budget are for programs, as in NAME:PROGRAM-4.", param="kvorum")
    if extra.into is not None and replies > 1:
        raise ApiError(400, "Only one reply can be written into a block.", param="kvorum.into")
    stop = [form.stop] if isinstance(form.stop, str) else form.stop or []
    return DecodeRequest(
        prompts,
        choices,
        tokens,
        form.sampling(temperature=1.0, top_p=1.0, seed=form.seed_or_fresh(), grammar=grammar),
        stop=[mark for mark in stop if mark],
        top=top,
        echo=echo,
        items=extra.view,
        into=extra.into,
        show=show,
    )
