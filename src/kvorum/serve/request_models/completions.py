"""Bodies of plain completions, and what they have in common with those of chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from kvorum.jsontypes import Json
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


NEUTRAL: Mapping[str, Json] = {
    # vLLM's
    "add_generation_prompt": True,
    "allowed_token_ids": [],
    "bad_words": [],
    "best_of": 1,
    "continue_final_message": False,
    "ignore_eos": False,
    "include_stop_str_in_output": False,
    "length_penalty": 1,
    "min_tokens": 0,
    "priority": 0,
    "return_tokens_as_token_ids": False,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "stop_token_ids": [],
    "use_beam_search": False,
    # llama-server's
    "dynatemp_range": 0,
    "min_keep": 0,
    "mirostat": 0,
    "n_keep": 0,
    "n_probs": 0,
    "repeat_penalty": 1,
    "return_progress": False,
    "timings_per_token": False,
    "top_n_sigma": -1,
    "typical_p": 1,
    "xtc_probability": 0,
}
"""Fields of other servers that clients made for them send along, with the values at which they do nothing."""


class StreamOptions(StrictRequest):
    """How a stream ends: with the usage, if that is asked for."""

    idle = frozenset({"include_obfuscation"})

    include_usage: bool = False


class CompletionBase(AnswerForm, Picking):
    """What chat and plain completions have in common."""

    idle = IDLE | {"cache_prompt", "id_slot", "prediction"}
    neutral = NEUTRAL

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
