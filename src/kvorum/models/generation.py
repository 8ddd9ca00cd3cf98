"""What a model's generation configuration says."""

from __future__ import annotations

from torch import nn


def end_ids(model: nn.Module) -> frozenset[int]:
    """The ids that end a text, by the generation configuration; none where the model has no configuration."""
    config = getattr(model, "generation_config", None)
    given = getattr(config, "eos_token_id", None)
    ids = given if isinstance(given, list | tuple) else [given]
    return frozenset(int(token) for token in ids if token is not None)
