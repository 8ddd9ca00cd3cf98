"""What kvorum needs of a tokenizer (those of transformers have it), and the tokens that end a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import nn

from kvorum.jsontypes import Json


class Tokenizer(Protocol):
    """A tokenizer of transformers, by what is used of it."""

    eos_token_id: int | None
    chat_template: str | Mapping[str, str] | None

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of tokens that stand for no text."""
        ...

    def __call__(
        self, text: str, *, add_special_tokens: bool, split_special_tokens: bool = False
    ) -> Mapping[str, Sequence[int]]:
        """Text to ids, under ``input_ids``."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """Ids to text, special tokens left out or not."""
        ...

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, Json]], *, tokenize: bool, add_generation_prompt: bool, **more: Json
    ) -> str:
        """A conversation as the text that the model was trained on; ``more``: a template, and what it may ask for."""
        ...

    def get_chat_template(self, *, tools: Json) -> str:
        """The template, of several the one for tools or the default."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Every token as the tokenizer spells it, and its id."""
        ...


def end_ids(model: nn.Module) -> frozenset[int]:
    """The ids that end a text, by the generation configuration; none where the model has no configuration."""
    config = getattr(model, "generation_config", None)
    given = getattr(config, "eos_token_id", None)
    ids = given if isinstance(given, list | tuple) else [given]
    return frozenset(int(token) for token in ids if token is not None)
