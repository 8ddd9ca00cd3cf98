"""A short causal forward through the seam against the model's own: the last word on whether kvorum is exact.

The probe knows rotations, windows, sinks and soft caps. This catches what no one told it of: a bias inside a model's
own attention, a scale that it does not pass on, a norm after the rotation. Not covered: what shows only on sequences
longer than these few tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kvorum.attention.kernel import Attends
from kvorum.attention.rotary import Rotary
from kvorum.errors import UnsupportedModel
from kvorum.models import seam


def compare_with_own_forward(model: nn.Module, rotaries: Sequence[Rotary], ids: Tensor) -> None:
    """Raise UnsupportedModel unless `ids` [n] give the same logits through the seam, each layer turning by its Rotary,
    as in the model's own forward; the median over tokens counts, because one token may meet a tie between experts."""
    rows = torch.arange(ids.shape[0], device=ids.device)
    ours = seam.call(model, ids, attention=_Dense(rotaries), logits_index=rows)
    with torch.no_grad():
        own = model(input_ids=ids[None], use_cache=False).logits[0]
    error = float(relative_error(ours.logits, own).median())
    # layers that quantise their inputs turn a rounding into a whole step of theirs
    coarse = any(hasattr(module, "packed") for module in model.modules())
    if not error < 10 * tolerance(torch.bfloat16 if coarse else next(model.parameters()).dtype):
        raise UnsupportedModel(
            f"{type(model).__name__} does more in its attention than kvorum can see: a short forward through "
            f"kvorum differs from its own by {error:.1e} of the logits."
        )


def tolerance(dtype: torch.dtype) -> float:
    """The relative error that rounding explains in the model's dtype."""
    return {torch.bfloat16: 2e-2, torch.float16: 3e-3}.get(dtype, 1e-4)


def relative_error(x: Tensor, reference: Tensor) -> Tensor:
    """Relative distance of each x[i, ...] from the reference [n or 1, ...]: [n], float64."""
    a, b = x.double().flatten(1), reference.double().flatten(1)
    distance: Tensor = (a - b).norm(dim=1) / b.norm(dim=1).clamp_min(1e-30)
    return distance


class _Dense(Attends):
    """Plain causal attention of one sequence at positions 0, 1, 2 ... with the probed rotations."""

    def __init__(self, rotaries: Sequence[Rotary]) -> None:
        self.rotaries = rotaries

    def attend(
        self,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        n, group = query.shape[1], query.shape[0] // keys.shape[0]
        at = torch.arange(n, device=query.device)
        rotary = self.rotaries[layer]
        wide = torch.promote_types(query.dtype, torch.float32)
        q = rotary.rotate(query, at).to(wide)
        k = rotary.rotate(keys, at).to(wide).repeat_interleave(group, dim=0)
        scores = q @ k.transpose(1, 2) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        distance = at[:, None] - at[None, :]
        hidden = (distance < 0) | (distance >= (window or n))
        scores = scores.masked_fill(hidden, float("-inf"))
        if sinks is not None:
            scores = torch.cat((scores, sinks.to(wide)[:, None, None].expand(-1, n, 1)), dim=-1)
        weights = scores.softmax(dim=-1)[..., :n]
        return (weights @ values.to(wide).repeat_interleave(group, dim=0)).to(values.dtype).transpose(0, 1)
