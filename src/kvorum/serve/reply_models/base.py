"""What replies have in common: lists, errors, and what a route says of its errors."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from kvorum.jsontypes import JsonObject

_Description: TypeAlias = "dict[str, type[ReplyModel] | JsonObject | str]"
_RETRY: JsonObject = {"Retry-After": {"description": "Seconds after which to try again", "schema": {"type": "integer"}}}


class ReplyModel(BaseModel):
    """A reply; it may have more fields than are described."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class ListReply(ReplyModel):
    """A list of things, under ``data``, as OpenAI's API has them."""

    object: Literal["list"] = "list"


class ErrorBody(ReplyModel):
    """What went wrong, and what to do about it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(ReplyModel):
    """Any reply with a status of 400 and more."""

    error: ErrorBody


class Deleted(ReplyModel):
    """A run or block has been forgotten."""

    id: str
    deleted: bool = True


class Accepted(ReplyModel):
    """A command will be taken up before the next tick."""

    accepted: bool = True


def errors(*statuses: int) -> dict[int | str, _Description]:
    """What a route's description says of its errors; those that every route may have are added.

    One for all others keeps the framework from adding its 422, which is a 400 here.
    """
    known: dict[int | str, _Description] = {}
    for status in sorted({*statuses, 400, 401, 403, 421, 500, 503}):
        known[status] = {"model": ErrorReply}
        if status == 429:
            known[status]["headers"] = _RETRY
    known["default"] = {"model": ErrorReply, "description": "Any other error"}
    return known
