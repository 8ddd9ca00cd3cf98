"""Bodies of plain completions, and what they have in common with those of chat."""

from __future__ import annotations

import secrets
from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from kvorum.sampling.grammar import Grammar
from kvorum.sampling.sampling import Sampling
from kvorum.serve.request_models.answer_form import AnswerForm
from kvorum.serve.request_models.base import (
    Biases,
    Factor,
    Number,
    Penalty,
    RequestModel,
    Seed,
    Share,
    StrictRequest,
    Words,
)
from kvorum.serve.request_models.blocks import ViewItems
from kvorum.serve.request_models.runs import BudgetForm, Params

Stops = Words | Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=16)]


class Extra(StrictRequest):
    """The field ``kvorum``: of a program its parameters and budget; of plain decoding the view before the prompt.

    ``into``: the open block that prompt and reply are written to.
    """

    params: Params = Field(default_factory=dict)
    budget: BudgetForm | None = None
    view: ViewItems = Field(default_factory=list)
    into: str | None = Field(None, max_length=80)


class StreamOptions(RequestModel):
    """How a stream ends: with the usage, if that is asked for."""

    include_usage: bool = False


class CompletionBase(AnswerForm):
    """What chat and plain completions have in common."""

    model: str = Field(max_length=300)
    n: StrictInt | None = Field(None, ge=1, le=128)
    max_tokens: StrictInt | None = Field(None, ge=0, lt=2**31)
    temperature: Number | None = Field(None, ge=0, le=100)
    top_p: Share | None = None
    top_k: StrictInt | None = Field(None, ge=-1, lt=2**31)
    min_p: Share | None = None
    seed: Seed | None = None
    stop: Stops | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions = Field(default_factory=lambda: StreamOptions())
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Factor | None = None
    logit_bias: Biases | None = None
    user: str | None = Field(None, max_length=256)
    kvorum: Extra = Field(default_factory=lambda: Extra())

    def sampling(
        self, *, temperature: float, top_p: float, seed: int | None = None, grammar: Grammar | None = None
    ) -> Sampling:
        """How tokens are to be picked; ``temperature`` and ``top_p`` where the request says nothing."""
        return Sampling(
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=top_p if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            seed=seed,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            logit_bias={int(token): value for token, value in (self.logit_bias or {}).items()},
            grammar=grammar,
        )

    def seed_or_fresh(self) -> int:
        """The request's seed as one that draws take, or a fresh one."""
        return secrets.randbits(31) if self.seed is None else self.seed


class CompletionForm(CompletionBase):
    """``/v1/completions``. A prompt is text or token ids, or a list of either."""

    prompt: Words | list[Words] | list[StrictInt] | list[list[StrictInt]] = Field(union_mode="left_to_right")
    logprobs: StrictInt | StrictBool | None = None
    echo: StrictBool | None = None
    best_of: StrictInt | None = None
    suffix: str | None = None
