"""Bodies of plain completions, and what they have in common with those of chat."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from kvorum.serve.request_models.answer_form import AnswerForm
from kvorum.serve.request_models.base import StrictRequest, Words
from kvorum.serve.request_models.blocks import ViewItems
from kvorum.serve.request_models.picking import Picking
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


IDLE = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
    }
)
"""Fields of OpenAI's that tell its own service how to bill, route and cache."""


class StreamOptions(StrictRequest):
    """How a stream ends: with the usage, if that is asked for."""

    idle = frozenset({"include_obfuscation"})

    include_usage: bool = False


class CompletionBase(AnswerForm, Picking):
    """What chat and plain completions have in common."""

    idle = IDLE | {"cache_prompt", "id_slot", "prediction"}

    model: str = Field(max_length=300)
    n: StrictInt | None = Field(None, ge=1, le=128)
    max_tokens: StrictInt | None = Field(None, ge=0, lt=2**31)
    stop: Stops | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions = Field(default_factory=lambda: StreamOptions())
    user: str | None = Field(None, max_length=256)
    kvorum: Extra = Field(default_factory=lambda: Extra())


class CompletionForm(CompletionBase):
    """``/v1/completions``. A prompt is text or token ids, or a list of either."""

    prompt: Words | list[Words] | list[StrictInt] | list[list[StrictInt]] = Field(union_mode="left_to_right")
    logprobs: StrictInt | StrictBool | None = None
    echo: StrictBool | None = None
    best_of: StrictInt | None = None
    suffix: str | None = None
