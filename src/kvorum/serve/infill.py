"""Filling in between two texts, for models that were trained for it: their marks, found in the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.engine.text import encode
from kvorum.models.tokenizer import Tokenizer

_MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite, SmolLM
    ("<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"),  # DeepSeek's, spelled plainly
    ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),  # DeepSeek
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
)
"""Before what stands before, before what stands behind, and before what is to be filled in."""


def infill_marks(tokenizer: Tokenizer | None, vocab: int) -> tuple[int, int, int] | None:
    """The ids of a model's marks; None: it has none."""
    known = {} if tokenizer is None else tokenizer.get_vocab()
    for marks in _MARKS:
        ids = [known.get(mark, vocab) for mark in marks]
        if max(ids) < vocab:
            return ids[0], ids[1], ids[2]
    return None


def infill_ids(tokenizer: Tokenizer | None, marks: Sequence[int], before: str, behind: str) -> list[int]:
    """What a model is given to write what stands between ``before`` and ``behind``."""
    first, second, third = marks
    return [first, *encode(tokenizer, before), second, *encode(tokenizer, behind), third]
