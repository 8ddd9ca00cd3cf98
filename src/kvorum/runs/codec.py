"""Text to the model's tokens and back, as a run's programs and injections need it."""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.engine import text
from kvorum.engine.detokenizer import Detokenizer, decode
from kvorum.engine.engine import EngineCore


class Codec:
    """The tokenizer of an engine; ``ends`` are the ids that end a text."""

    def __init__(self, engine: EngineCore) -> None:
        self.tokenizer = engine.tokenizer
        self.ends = engine.ends
        self.vocab = engine.shape.vocab

    def encode(self, words: str) -> list[int]:
        """Text to token ids, nothing added. Raises BadRequest where the engine has no tokenizer."""
        return text.encode(self.tokenizer, words)

    def chat(self, *messages: tuple[str, str]) -> list[int]:
        """(role, content) pairs through the model's chat template, up to where the assistant begins."""
        return text.chat(self.tokenizer, [{"role": role, "content": content} for role, content in messages])

    def vocabulary(self) -> dict[str, int]:
        """The tokenizer's tokens that the model can write, as it spells them, and their ids; no special ones."""
        return text.vocabulary(self.tokenizer, self.vocab)

    def read(self, ids: Sequence[int]) -> str:
        """Token ids to text, special tokens left out; "" where the engine has no tokenizer."""
        return "" if self.tokenizer is None else decode(self.tokenizer, ids)

    def detokenizer(self) -> Detokenizer:
        """What turns one worker's ids into text, piece by piece as they come."""
        return Detokenizer(self.tokenizer)
