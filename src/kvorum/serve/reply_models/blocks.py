"""Replies that show blocks."""

from __future__ import annotations

from typing import Literal

from kvorum.serve.reply_models.base import ListReply, ReplyModel


class BlockReply(ReplyModel):
    """A block of ``model``. ``tokens`` is None where it has not been read from the store yet."""

    id: str
    object: Literal["block"] = "block"
    created: int
    name: str
    model: str = ""
    tokens: int | None
    sealed: bool
    pages: int
    saved: bool
    ids: list[int] | None = None
    text: str | None = None


class BlockList(ListReply):
    """All blocks of all clients, the newest first."""

    data: list[BlockReply]
