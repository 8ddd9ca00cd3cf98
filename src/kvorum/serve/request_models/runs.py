"""Bodies of requests for runs: what a new one is to be, and what is asked of one that goes on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StrictBool, StrictInt

from kvorum.serve.request_models.base import Biases, Count, Factor, Number, Penalty, Seed, Share, StrictRequest, Words


class BudgetForm(StrictRequest):
    """Limits of a run; those that are left out do not limit."""

    ticks: Count | None = None
    decoded: Count | None = None
    prefill: Count | None = None
    latent: Count | None = None
    tokens: Count | None = None
    seconds: Number | None = Field(None, gt=0, le=1e6)


Params = Annotated[dict[str, JsonValue], Field(max_length=64)]


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
    """A new run. ``program`` and ``workers`` may stand in the model's name, as in NAME:PROGRAM-4.

    ``attention``: in every so many-th tick the trace tells whose words each worker attends to; 0: never.
    """

    problem: Words = Field(min_length=1)
    model: str | None = Field(None, max_length=300)
    program: str | None = Field(None, max_length=80)
    workers: StrictInt | Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    params: Params = Field(default_factory=dict)
    budget: BudgetForm | None = None
    sampling: SamplingForm = Field(default_factory=lambda: SamplingForm())
    seed: Seed = 0
    thinking: StrictBool | None = None
    attention: StrictInt = Field(0, ge=0, le=10000)
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

    kind: Literal["say", "share", "leave", "join", "answer", "approve", "refuse"]
    worker: str = Field("", max_length=40)
    text: str = Field("", max_length=20000)
