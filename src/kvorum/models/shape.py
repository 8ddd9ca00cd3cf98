"""The shape of a model: what the engine and attention need to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from kvorum.attention.rotary import Rotary


@dataclass(frozen=True)
class LayerShape:
    """One layer, as attention sees it. `window`: a key is visible at distances below it (None: at any)."""

    rotary: Rotary
    q_heads: int
    kv_heads: int
    k_dim: int
    v_dim: int
    window: int | None


@dataclass(frozen=True)
class ModelShape:
    """What the engine needs to know of a model.

    `max_positions`: views up to this many positions are exact (None: any length); beyond it the model would
    change its rotation or its query scale with the length, or see its context in chunks. `max_tokens`: the
    most tokens that one packed forward may hold (None: any), for models that scale by the index in the batch
    (Llama 4). `trained`: how many positions the model has learned to use, where it says so. Layers with the same
    rotation share one Rotary object.
    """

    layers: tuple[LayerShape, ...]
    vocab: int
    hidden: int
    max_positions: int | None
    max_tokens: int | None
    trained: int | None = None

    @property
    def longest(self) -> int | None:
        """Positions that a text may take to be within what the model has learned, and exact; None: any number."""
        known = [limit for limit in (self.max_positions, self.trained) if limit is not None]
        return min(known, default=None)
