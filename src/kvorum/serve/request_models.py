"""Bodies of requests. Those of the OpenAI routes leave unknown fields unread; ours refuse them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, StrictInt, model_validator

from kvorum.jsontypes import Json

Words = Annotated[str, Field(max_length=2**22)]
Seed = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Number = Annotated[float, Field(strict=True)]
"""No text and no truth value, as OpenAI's servers have it; a whole number is one."""
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[StrictInt, Field(ge=1, lt=2**31)]
Stops = Words | Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=16)]


class Form(BaseModel):
    """A body; unknown fields are left unread, and null is as if the field were not there, as with OpenAI."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Json) -> Json:
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body


class StrictForm(Form):
    """A body without unknown fields."""

    model_config = ConfigDict(extra="forbid")


class ViewItem(StrictForm):
    """One place of a view: tokens ``from`` to ``to`` of a block, or a gap of so many positions."""

    model_config = ConfigDict(populate_by_name=True)

    block: str | None = Field(None, max_length=80)
    start: int | None = Field(None, alias="from", ge=0, lt=2**31)
    to: int | None = Field(None, ge=0, lt=2**31)
    gap: int | None = Field(None, ge=0, lt=2**20)


ViewItems = Annotated[list[ViewItem], Field(max_length=256)]


class BudgetForm(StrictForm):
    """Limits of a run; those that are left out do not limit."""

    ticks: Count | None = None
    decoded: Count | None = None
    prefill: Count | None = None
    latent: Count | None = None
    tokens: Count | None = None
    seconds: Number | None = Field(None, gt=0, le=1e6)


Params = Annotated[dict[str, JsonValue], Field(max_length=64)]


class Extra(StrictForm):
    """The field ``kvorum``: of a program its parameters and budget; of plain decoding the view before the prompt.

    ``into``: the open block that prompt and reply are written to.
    """

    params: Params = Field(default_factory=dict)
    budget: BudgetForm | None = None
    view: ViewItems = Field(default_factory=list)
    into: str | None = Field(None, max_length=80)


class StreamOptions(Form):
    """How a stream ends: with the usage, if that is asked for."""

    include_usage: bool = False


class CompletionBase(Form):
    """What chat and plain completions have in common."""

    model: str = Field(max_length=300)
    n: StrictInt | None = Field(None, ge=1, le=128)
    max_tokens: StrictInt | None = Field(None, ge=0, lt=2**31)
    temperature: Number | None = Field(None, ge=0, le=100)
    top_p: Number | None = Field(None, gt=0, le=1)
    top_k: StrictInt | None = Field(None, ge=-1, lt=2**31)
    min_p: Share | None = None
    seed: Seed | None = None
    stop: Stops | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions = Field(default_factory=lambda: StreamOptions())
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


class ChatForm(CompletionBase):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1, max_length=2048)
    max_completion_tokens: StrictInt | None = Field(None, ge=0, lt=2**31)
    logprobs: StrictBool | None = None
    top_logprobs: StrictInt | None = Field(None, ge=0, le=20)
    response_format: dict[str, JsonValue] | None = None
    tools: list[JsonValue] | None = None


class CompletionForm(CompletionBase):
    """``/v1/completions``. A prompt is text or token ids, or a list of either."""

    prompt: Words | list[Words] | list[StrictInt] | list[list[StrictInt]] = Field(union_mode="left_to_right")
    logprobs: StrictInt | StrictBool | None = None
    echo: StrictBool | None = None
    best_of: StrictInt | None = None
    suffix: str | None = None


class SamplingForm(StrictForm):
    """How workers pick their tokens."""

    temperature: Number = Field(0.6, ge=0, le=100)
    top_p: Number = Field(0.95, gt=0, le=1)
    top_k: StrictInt = Field(0, ge=0, lt=2**31)
    min_p: Share = 0.0


class RunForm(StrictForm):
    """A new run. ``program`` and ``workers`` may stand in the model's name, as in NAME:PROGRAM-4."""

    problem: Words = Field(min_length=1)
    model: str | None = Field(None, max_length=300)
    program: str | None = Field(None, max_length=80)
    workers: StrictInt | Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    params: Params = Field(default_factory=dict)
    budget: BudgetForm | None = None
    sampling: SamplingForm = Field(default_factory=lambda: SamplingForm())
    seed: Seed = 0
    paused: StrictBool = False


class ForkForm(StrictForm):
    """Where a run is forked, and what is other from there on."""

    tick: StrictInt = Field(ge=0, lt=2**31)
    seed: Seed | None = None
    budget: BudgetForm | None = None
    paused: StrictBool = False


class StepForm(StrictForm):
    """How many ticks a paused run is to do."""

    ticks: StrictInt = Field(1, ge=1, le=10000)


class CommandForm(StrictForm):
    """What is asked of a run while it goes on: say, share, leave, join or answer."""

    kind: Literal["say", "share", "leave", "join", "answer"]
    worker: str = Field("", max_length=40)
    text: str = Field("", max_length=20000)


class AppendForm(StrictForm):
    """What is written to a block: text or ids, encoded behind what ``view`` shows."""

    text: Words | None = None
    ids: list[StrictInt] | None = None
    view: ViewItems = Field(default_factory=list)


class BlockForm(AppendForm):
    """A new block; ``messages`` go through the model's chat template."""

    name: str = Field("", max_length=80)
    messages: list[Message] | None = Field(None, max_length=2048)
    sealed: StrictBool = False
