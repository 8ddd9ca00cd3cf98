"""Replies that turn text into tokens and back."""

from __future__ import annotations

from kvorum.serve.reply_models.base import ReplyModel


class Piece(ReplyModel):
    """A token with its text."""

    id: int
    piece: str


class TokensReply(ReplyModel):
    """Ids, or ids with their texts (``with_pieces``); how many, and how many the model takes."""

    tokens: list[int] | list[Piece]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class TextReply(ReplyModel):
    """What ids spell, under the names of both servers."""

    content: str
    prompt: str


class PromptReply(ReplyModel):
    """A conversation as text."""

    prompt: str


class TokenizerReply(ReplyModel):
    """The tokenizer's special tokens as text, the chat template, and how many tokens the model takes."""

    tokenizer_class: str
    eos_token: str | None
    bos_token: str | None
    chat_template: str | None
    model_max_length: int
