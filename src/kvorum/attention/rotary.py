"""How one layer rotates its queries and keys by position (RoPE).

Covers: plain, partial (first or last features of the head), half-split and interleaved rotation by a fixed
set of frequencies, and layers without rotation. Constant scale factors (YaRN, LongRoPE) are not applied here:
the model has already multiplied them into the unrotated q and k. Frequencies that change with the length are
not covered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Style = Literal["none", "half", "interleaved"]


@dataclass(frozen=True, eq=False)
class Rotary:
    """The rotation of one layer, shared by its queries and keys.

    `style` says which features form a pair: `half` pairs feature i with i + r/2, `interleaved` pairs 2i with
    2i + 1 (r = number of rotated features); `none` rotates nothing. `start` is the first rotated feature of
    the head. `inv_freq` [r/2] holds the angle per position of each pair, in radians (float32 or wider).
    """

    style: Style
    start: int
    inv_freq: Tensor
    _wide: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        wide = self.inv_freq.detach().to(torch.promote_types(self.inv_freq.dtype, torch.float32))
        object.__setattr__(self, "_wide", wide)

    @classmethod
    def none(cls) -> Rotary:
        """The rotation of a layer without positions (NoPE)."""
        return cls("none", 0, torch.empty(0))

    @property
    def rotated(self) -> int:
        """Number of rotated features of the head."""
        return 0 if self.style == "none" else 2 * self.inv_freq.numel()

    def cos_sin(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angles at `positions` [n] (any integer, negative too): two [n, r/2].

        Angles are made in the wider of float32 and `dtype`, and so are the results: float32 positions are
        exact up to 2^24. In float64 the frequencies are the model's float32 values.
        """
        wide = torch.promote_types(dtype, torch.float32)
        frequencies = self._wide
        if frequencies.dtype != wide or frequencies.device != positions.device:
            frequencies = frequencies.to(device=positions.device, dtype=wide)
        angles = positions.to(wide)[:, None] * frequencies
        return angles.cos(), angles.sin()

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate `x` [heads, n, head_dim] by `positions` [n]; same shape and dtype, `x` is left as it is.

        Computed in the wider of float32 and x's dtype and rounded once. `rotate(rotate(x, a), b)` is
        `rotate(x, a + b)` up to rounding. A layer of style `none` returns `x` itself.
        """
        if self.style == "none":
            return x
        cos, sin = self.cos_sin(positions, x.dtype)
        return self.apply(x, cos, sin)

    def apply(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate `x` [heads, n, head_dim] by given `cos_sin` tables [n, r/2], for callers that share one
        table."""
        if self.style == "none":
            return x
        stop = self.start + self.rotated
        part = x[..., self.start : stop].to(cos.dtype)
        if self.style == "half":
            first, second = part.chunk(2, dim=-1)
            turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        else:
            first, second = part[..., 0::2], part[..., 1::2]
            turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)
        if self.rotated == x.shape[-1]:
            return turned.to(x.dtype)
        return torch.cat((x[..., : self.start], turned.to(x.dtype), x[..., stop:]), dim=-1)
