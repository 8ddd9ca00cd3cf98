"""Bodies of the OpenAI routes, as far as they mean something here. Other fields are left unread."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

Words = Annotated[str, Field(max_length=2**22)]
Seed = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Number = Annotated[float, Field(strict=True)]
"""No text and no truth value, as OpenAI's servers have it; a whole number is one."""
Stops = Words | Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=16)]


class Form(BaseModel):
    """A body; unknown fields are left unread, and null is as if the field were not there, as with OpenAI."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Any) -> Any:
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body


class Item(Form):
    """One place of a view: tokens ``from`` to ``to`` of a block, or a gap of so many positions."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    block: str | None = Field(None, max_length=80)
    start: int | None = Field(None, alias="from", ge=0, lt=2**31)
    to: int | None = Field(None, ge=0, lt=2**31)
    gap: int | None = Field(None, ge=0, lt=2**20)


class BudgetForm(Form):
    """Limits of a run; those that are left out do not limit."""

    model_config = ConfigDict(extra="forbid")

    ticks: StrictInt | None = Field(None, ge=1, lt=2**31)
    decoded: StrictInt | None = Field(None, ge=1, lt=2**31)
    prefill: StrictInt | None = Field(None, ge=1, lt=2**31)
    latent: StrictInt | None = Field(None, ge=1, lt=2**31)
    tokens: StrictInt | None = Field(None, ge=1, lt=2**31)
    seconds: Number | None = Field(None, gt=0, le=1e6)


class Extra(Form):
    """The field ``kvorum``: of a program its parameters and budget; of plain decoding the view before the prompt.

    ``into``: the open block that prompt and reply are written to.
    """

    model_config = ConfigDict(extra="forbid")

    params: dict[str, Any] = Field(default_factory=dict, max_length=64)
    budget: BudgetForm | None = None
    view: list[Item] = Field(default_factory=list, max_length=256)
    into: str | None = Field(None, max_length=80)


class StreamOptions(Form):
    """How a stream ends."""

    include_usage: bool = False


class Common(Form):
    """What chat and plain completions have in common."""

    model: str = Field(max_length=300)
    n: StrictInt | None = Field(None, ge=1, le=128)
    max_tokens: StrictInt | None = Field(None, ge=0, lt=2**31)
    temperature: Number | None = Field(None, ge=0, le=100)
    top_p: Number | None = Field(None, gt=0, le=1)
    top_k: StrictInt | None = Field(None, ge=-1, lt=2**31)
    min_p: Number | None = Field(None, ge=0, le=1)
    seed: Seed | None = None
    stop: Stops | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Number | None = Field(None, ge=-2, le=2)
    presence_penalty: Number | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    user: str | None = Field(None, max_length=256)
    kvorum: Extra = Field(default_factory=lambda: Extra())


class Part(Form):
    """A part of a message's content. Only text is taken."""

    type: str
    text: Words | None = None


class Message(Form):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Words | list[Part] | None = None


class ChatForm(Common):
    """``/v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1, max_length=2048)
    max_completion_tokens: StrictInt | None = Field(None, ge=0, lt=2**31)
    logprobs: StrictBool | None = None
    top_logprobs: StrictInt | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None


class CompletionForm(Common):
    """``/v1/completions``. A prompt is text or token ids, or a list of either."""

    prompt: Words | list[Words] | list[StrictInt] | list[list[StrictInt]] = Field(union_mode="left_to_right")
    logprobs: StrictInt | StrictBool | None = None
    echo: StrictBool | None = None
    best_of: StrictInt | None = None
    suffix: str | None = None
