"""Bodies and replies of ``/v1/systemone`` and ``/v1/decisions``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StrictInt

from kvorum.engine.budget import Ledger
from kvorum.serve.reply_models.base import ReplyModel
from kvorum.serve.request_models.base import StrictRequest, Words
from kvorum.serve.request_models.blocks import ViewItems

MOST_QUESTIONS = 400
"""Questions of one request, as OpenAI's decisions have it."""
MOST_ORDERS = 16

QuestionName = Annotated[str, Field(min_length=1, max_length=200)]
Question = dict[str, JsonValue]
"""One question; what may stand in it is checked as questions are, so that an error names the question."""


class DecisionBase(StrictRequest):
    """What both forms have in common, and what is kvorum's own.

    ``orders``: in so many orders the options of a choice are listed, and the mean is taken; 0: they are not listed.
    ``view``: spans of kept blocks that the questions are about, in place of a state. ``user``: whose turn it is.
    """

    idle = frozenset({"prompt_cache_key", "prompt_cache_options", "safety_identifier"})
    model: str = Field(max_length=300)
    orders: StrictInt = Field(1, ge=0, le=MOST_ORDERS)
    view: ViewItems = Field(default_factory=list)
    user: str | None = Field(None, max_length=256)


class SystemOneForm(DecisionBase):
    """System One's request: a state, and questions by name."""

    state: Words | dict[str, JsonValue] | list[JsonValue] | None = None
    questions: Annotated[dict[QuestionName, Question], Field(min_length=1, max_length=MOST_QUESTIONS)]
    assets: dict[str, JsonValue] | None = None


class DecisionForm(DecisionBase):
    """OpenAI's request: an input, text or a conversation, and a list of questions."""

    input: Words | Annotated[list[dict[str, JsonValue]], Field(max_length=2048)] | None = None
    questions: Annotated[list[Question], Field(min_length=1, max_length=MOST_QUESTIONS)]


class DecisionExtra(ReplyModel):
    """What kvorum tells besides.

    ``mass``: of each question, in order, the share of all that the model could have written which its answers are; near
    0 the model would have said something else. ``ledger``: what the request took.
    """

    mass: list[float]
    ledger: Ledger


class SystemOneUsage(ReplyModel):
    """Tokens of a request; nothing is written, so there are no output tokens. ``cached_tokens``: of the blocks that
    were there."""

    input_tokens: int
    input_tokens_details: dict[Literal["cached_tokens", "cache_write_tokens"], int]
    output_tokens: int = 0


class SystemOneReply(ReplyModel):
    """Answers by the names of their questions."""

    model: str
    answers: dict[str, dict[str, JsonValue]]
    usage: SystemOneUsage
    kvorum: DecisionExtra


class DecisionUsage(SystemOneUsage):
    """As OpenAI's decisions tell it."""

    output_tokens_details: dict[Literal["reasoning_tokens"], int]
    total_tokens: int


class DecisionReply(ReplyModel):
    """Answers in the order of the questions; ``name`` null where the question has none."""

    model: str
    answers: list[dict[str, JsonValue]]
    usage: DecisionUsage
    kvorum: DecisionExtra
