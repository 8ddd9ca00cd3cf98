"""What transformers' models call the cache that they are given, which changed with 5.24."""

from __future__ import annotations

import inspect

from torch import nn


def cache_argument(model: nn.Module) -> str:
    """The keyword of ``forward`` and ``generate``: ``cache`` from 5.24 on, ``past_key_values`` before."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
