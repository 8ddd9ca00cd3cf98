"""Bodies of requests. Those of the OpenAI routes leave unknown fields unread; ours refuse them."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StrictBool, StrictInt, model_validator
from pydantic_core import PydanticCustomError

from kvorum.jsontypes import Json
from kvorum.sampling.sampling import Sampling
from kvorum.serve.errors import UNKNOWN_FIELD
from kvorum.wording import unknown

Words = Annotated[str, Field(max_length=2**22)]


def _drawn(seed: int) -> int:
    return seed % 2**64


Seed = Annotated[StrictInt, Field(ge=-9223372036854776000, le=9223372036854776000), AfterValidator(_drawn)]
"""In the bounds of OpenAI's reference; as draws take it, so that no two whole numbers of 64 bits are one seed."""
Number = Annotated[float, Field(strict=True)]
"""No text and no truth value, as OpenAI's servers have it; a whole number is one."""
Share = Annotated[Number, Field(ge=0, le=1)]
Penalty = Annotated[Number, Field(ge=-2, le=2)]
Factor = Annotated[Number, Field(gt=0, le=100)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Biases = Annotated[dict[TokenId, Annotated[Number, Field(ge=-100, le=100)]], Field(max_length=1024)]
"""By token id, which JSON has as text; OpenAI's bounds."""
Count = Annotated[StrictInt, Field(ge=1, lt=2**31)]
Stops = Words | Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=16)]


class RequestModel(BaseModel):
    """A body; unknown fields are left unread, and null is as if the field were not there, as with OpenAI."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Json) -> Json:
        if not isinstance(body, dict):
            return body
        known = [field.alias or name for name, field in cls.model_fields.items()]
        strange = [name for name, value in body.items() if value is not None and name not in known]
        if strange and cls.model_config["extra"] == "forbid":
            about = {"message": unknown("field", strange[0], known), "field": strange[0]}
            raise PydanticCustomError(UNKNOWN_FIELD, "{message}", about)
        return {name: value for name, value in body.items() if value is not None}


class StrictRequest(RequestModel):
    """A body without unknown fields: one is refused before all else, with the near ones that there are."""

    model_config = ConfigDict(extra="forbid")


class ViewItem(StrictRequest):
    """One place of a view: tokens ``from`` to ``to`` of a block, or a gap of so many positions."""

    block: str | None = Field(None, max_length=80)
    start: int | None = Field(None, alias="from", ge=0, lt=2**31)
    to: int | None = Field(None, ge=0, lt=2**31)
    gap: int | None = Field(None, ge=0, lt=2**20)


ViewItems = Annotated[list[ViewItem], Field(max_length=256)]


class BudgetForm(StrictRequest):
    """Limits of a run; those that are left out do not limit."""

    ticks: Count | None = None
    decoded: Count | None = None
    prefill: Count | None = None
    latent: Count | None = None
    tokens: Count | None = None
    seconds: Number | None = Field(None, gt=0, le=1e6)


Params = Annotated[dict[str, JsonValue], Field(max_length=64)]


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


class CompletionBase(RequestModel):
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

    def sampling(self, *, temperature: float, top_p: float, seed: int | None = None) -> Sampling:
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
        )

    def seed_or_fresh(self) -> int:
        """The request's seed as one that draws take, or a fresh one."""
        return secrets.randbits(31) if self.seed is None else self.seed

    def client(self, address: str) -> str:
        """Whose turn it is: the address, and the user that the request names."""
        return f"{address} {self.user}" if self.user else address


class ContentPart(RequestModel):
    """A part of a message's content. Only text is taken."""

    type: str
    text: Words | None = None


class Message(RequestModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Words | list[ContentPart] | None = None


class TemplateForm(StrictRequest):
    """What a chat template with a switch for thinking is told, under either of its names."""

    enable_thinking: StrictBool | None = None
    thinking: StrictBool | None = None


class ChatForm(CompletionBase):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1, max_length=2048)
    max_completion_tokens: StrictInt | None = Field(None, ge=0, lt=2**31)
    logprobs: StrictBool | None = None
    top_logprobs: StrictInt | None = Field(None, ge=0, le=20)
    response_format: dict[str, JsonValue] | None = None
    tools: list[JsonValue] | None = None
    chat_template_kwargs: TemplateForm | None = None

    @property
    def thinking(self) -> bool | None:
        """Whether the model is to think first; None: as its chat template has it."""
        asked = self.chat_template_kwargs or TemplateForm()
        return asked.thinking if asked.enable_thinking is None else asked.enable_thinking


class CompletionForm(CompletionBase):
    """``/v1/completions``. A prompt is text or token ids, or a list of either."""

    prompt: Words | list[Words] | list[StrictInt] | list[list[StrictInt]] = Field(union_mode="left_to_right")
    logprobs: StrictInt | StrictBool | None = None
    echo: StrictBool | None = None
    best_of: StrictInt | None = None
    suffix: str | None = None


class SamplingForm(StrictRequest):
    """How workers pick their tokens."""

    temperature: Number = Field(0.6, ge=0, le=100)
    top_p: Share = 0.95
    top_k: StrictInt = Field(0, ge=0, lt=2**31)
    min_p: Share = 0.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    repetition_penalty: Factor = 1.0
    dry_multiplier: Number = Field(0.0, ge=0, le=100)
    dry_base: Number = Field(1.75, ge=1, le=100)
    dry_allowed_length: StrictInt = Field(2, ge=1, lt=2**31)
    logit_bias: Biases = Field(default_factory=dict)


class RunForm(StrictRequest):
    """A new run. ``program`` and ``workers`` may stand in the model's name, as in NAME:PROGRAM-4."""

    problem: Words = Field(min_length=1)
    model: str | None = Field(None, max_length=300)
    program: str | None = Field(None, max_length=80)
    workers: StrictInt | Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    params: Params = Field(default_factory=dict)
    budget: BudgetForm | None = None
    sampling: SamplingForm = Field(default_factory=lambda: SamplingForm())
    seed: Seed = 0
    thinking: StrictBool | None = None
    paused: StrictBool = False


class ForkForm(StrictRequest):
    """Where a run is forked, and what is other from there on."""

    tick: StrictInt = Field(ge=0, lt=2**31)
    seed: Seed | None = None
    budget: BudgetForm | None = None
    paused: StrictBool = False


class StepForm(StrictRequest):
    """How many ticks a paused run is to do."""

    ticks: StrictInt = Field(1, ge=1, le=10000)


class CommandForm(StrictRequest):
    """What is asked of a run while it goes on: say, share, leave, join or answer."""

    kind: Literal["say", "share", "leave", "join", "answer"]
    worker: str = Field("", max_length=40)
    text: str = Field("", max_length=20000)


class AppendForm(StrictRequest):
    """What is written to a block: text or ids, encoded behind what ``view`` shows."""

    text: Words | None = None
    ids: list[StrictInt] | None = None
    view: ViewItems = Field(default_factory=list)


class BlockForm(AppendForm):
    """A new block; ``messages`` go through the model's chat template."""

    name: str = Field("", max_length=80)
    messages: list[Message] | None = Field(None, max_length=2048)
    sealed: StrictBool = False
