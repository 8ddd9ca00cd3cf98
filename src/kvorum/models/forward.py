"""What a model's forward pass gives: logits, and hidden states where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Forward:
    """Logits ``[rows, vocab]``, and the hidden states ``[rows, hidden]`` after the final norm if asked for."""

    logits: Tensor
    hidden: Tensor | None
