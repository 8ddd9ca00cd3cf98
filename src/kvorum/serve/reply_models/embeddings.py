"""Replies with embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kvorum.serve.reply_models.base import ListReply, ReplyModel


class EmbeddingItem(ReplyModel):
    """The embedding of the input with number ``index``: numbers, or as base64 their bytes as float32, lowest first."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(ReplyModel):
    """Tokens that were read, each time anew."""

    prompt_tokens: int
    prompt_tokens_details: dict[str, int] = Field(default_factory=lambda: {"cached_tokens": 0})
    total_tokens: int


class EmbeddingKind(ReplyModel):
    """What the numbers are: a mean of hidden states, not of a model that was trained for embeddings."""

    pooling: Literal["mean of the last hidden states"] = "mean of the last hidden states"
    dimensions: int


class EmbeddingReply(ListReply):
    """Embeddings in the order of the inputs."""

    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
    kvorum: EmbeddingKind
