"""Bodies of requests for blocks, and how a view is written down."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from kvorum.serve.request_models.base import StrictRequest, Words
from kvorum.serve.request_models.messages import Message


class ViewItem(StrictRequest):
    """One place of a view: tokens ``from`` to ``to`` of a block, beginning at position ``at``, or a gap."""

    block: str | None = Field(None, max_length=80)
    start: int | None = Field(None, alias="from", ge=0, lt=2**31)
    to: int | None = Field(None, ge=0, lt=2**31)
    at: int | None = Field(None, ge=0, lt=2**20)
    gap: int | None = Field(None, ge=0, lt=2**20)


ViewItems = Annotated[list[ViewItem], Field(max_length=256)]


class AppendForm(StrictRequest):
    """What is written to a block: text or ids, encoded behind what ``view`` shows."""

    text: Words | None = None
    ids: list[StrictInt] | None = None
    view: ViewItems = Field(default_factory=list)


class BlockForm(AppendForm):
    """A new block of ``model``, by default the first; ``messages`` go through its chat template."""

    model: str | None = Field(None, max_length=300)

    name: str = Field("", max_length=80)
    messages: list[Message] | None = Field(None, max_length=2048)
    sealed: StrictBool = False
