"""What kvorum needs of a tokenizer; those of transformers have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """A tokenizer of transformers, by what is used of it."""

    eos_token_id: int | None
    chat_template: str | None

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
        self, conversation: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """A conversation as the text that the model was trained on."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Every token as the tokenizer spells it, and its id."""
        ...
