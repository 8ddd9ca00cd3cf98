"""The size of a cache: shapes of its layers, tokens, pages, bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from kvorum.errors import BadRequest


class CacheShape(NamedTuple):
    """What one layer stores per token: ``kv_heads`` keys of ``k_dim`` and values of ``v_dim`` numbers."""

    kv_heads: int
    k_dim: int
    v_dim: int


@dataclass(frozen=True)
class CacheConfig:
    """The size of a cache: what each layer stores per token, for how many ``tokens``, in pages of ``page_size`` slots.

    Raises:
        BadRequest: ``tokens`` or ``page_size`` is not a whole number of at least 1.
    """

    layers: tuple[CacheShape, ...]
    tokens: int
    page_size: int = 16
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        for size in (self.tokens, self.page_size):
            if not isinstance(size, int) or size < 1:
                raise BadRequest(
                    f"kv_tokens={self.tokens} and page_size={self.page_size} must both be whole numbers of at least 1."
                )

    @property
    def pages(self) -> int:
        """How many pages it takes to hold that many tokens."""
        return -(-self.tokens // self.page_size)

    @property
    def slots(self) -> int:
        """Places for tokens in all pages."""
        return self.pages * self.page_size

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values that one token takes over all layers."""
        return sum(s.kv_heads * (s.k_dim + s.v_dim) for s in self.layers) * self.dtype.itemsize
