"""Whether kvorum is exact on a model: what its configuration says already, and a forward that is compared with its own.

A configuration refuses models that cannot be exact over views, and limits the lengths of others. The comparison has
the last word: a short causal forward through the seam against the model's own. The probe knows rotations, windows,
sinks and soft caps; this catches what it cannot see: a bias inside a model's own attention, a scale that it does not
pass on, a norm after the rotation. Not covered: what shows only on sequences longer than these few tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kvorum.attention.kernel import Attends, Softmax
from kvorum.attention.plan import Segment
from kvorum.attention.reference import attend
from kvorum.attention.rotary import Rotary
from kvorum.errors import UnsupportedModel
from kvorum.kv import CacheShape
from kvorum.models import seam

# Layer types of transformers whose tokens mix by attention alone.
_ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention", "attention"})


def refuse_by_configuration(model: nn.Module, config: Any) -> None:
    """Raise UnsupportedModel for a model that cannot be exact, as far as its configuration and arguments say."""
    foreign = sorted({str(kind) for kind in getattr(config, "layer_types", None) or ()} - _ATTENTION_LAYERS)
    dynamic = any("dynamic" in str(rope.get("rope_type")) for rope in _rope_parameters(config))
    encoder = getattr(config, "is_encoder_decoder", False)
    numbered = "position_ids" in inspect.signature(model.forward).parameters
    for refused, why in (
        (encoder, "is an encoder-decoder; kvorum needs a decoder-only language model"),
        (foreign, f"has layers of type {', '.join(foreign)}, whose state cannot be put together from blocks"),
        (dynamic, "uses dynamic NTK RoPE: its frequencies change with the length, so stored keys go stale"),
        (getattr(config, "alibi", False), "uses ALiBi position biases, not a rotation of queries and keys"),
        (not numbered, "takes no position ids (it is recurrent, or uses ALiBi), so it has no rotation to move"),
    ):
        if refused:
            raise UnsupportedModel(f"{type(model).__name__} {why}.")


def _rope_parameters(config: Any) -> Iterator[dict[str, Any]]:
    """The RoPE parameter sets of a configuration: one, or one per layer type."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if "rope_type" in found:
        yield found
    else:
        yield from (entry for entry in found.values() if isinstance(entry, dict))


def limits(config: Any) -> tuple[int | None, int | None]:
    """(max_positions, max_tokens) up to which nothing but the rotation depends on the position."""
    positions: list[int] = []
    tokens: list[int] = []
    for rope in _rope_parameters(config):
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        # LongRoPE has another set of frequencies beyond, Ministral 3 scales its queries there
        long = rope.get("rope_type") == "longrope" and rope.get("long_factor") != rope.get("short_factor")
        if long or rope.get("llama_4_scaling_beta") is not None:
            positions.append(int(original))
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        positions.append(int(config.attention_chunk_size))
    if getattr(config, "attn_temperature_tuning", False):
        # Llama 4 scales queries by log1p(floor((index + 1) / floor_scale)), index counted in the packed batch
        positions.append(int(config.floor_scale) - 1)
        tokens.append(int(config.floor_scale) - 1)
    return min(positions, default=None), min(tokens, default=None)


def farthest(max_positions: int | None, trained: int | None) -> int:
    """The farthest position at which a model is probed; ``trained``: its configuration's `max_position_embeddings`."""
    known = trained or 1 << 12
    return min(max_positions or known, known, 1 << 15) - 1


def trained(config: Any) -> int | None:
    """How many positions the model has learned to use, its rotation stretched as it says; None: it does not say."""
    found = getattr(config, "max_position_embeddings", None)
    if not found:
        return None
    stretched = [
        int(rope["factor"] * (rope.get("original_max_position_embeddings") or found))
        for rope in _rope_parameters(config)
        if rope.get("rope_type") in ("linear", "yarn") and rope.get("factor")
    ]
    return max(int(found), *stretched) if stretched else int(found)


def compare_with_own_forward(model: nn.Module, rotaries: Sequence[Rotary], ids: Tensor) -> None:
    """Raise UnsupportedModel unless `ids` [n] give the same logits through the seam, each layer turning by its Rotary,
    as in the model's own forward; the median over tokens counts, because one token may meet a tie between experts."""
    rows = torch.arange(ids.shape[0], device=ids.device)
    ours = seam.call(model, ids, attention=Causal(rotaries, rows), logits_index=rows)
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
    a, b = x.cpu().double().flatten(1), reference.cpu().double().flatten(1)
    distance: Tensor = (a - b).norm(dim=1) / b.norm(dim=1).clamp_min(1e-30)
    return distance


class Causal(Attends):
    """Attention of one sequence at positions 0, 1, 2 ... with the probed rotations, by the reference kernel."""

    def __init__(self, rotaries: Sequence[Rotary], at: Tensor) -> None:
        self.rotaries, self.at = rotaries, at
        n, slots = len(at), slice(0, len(at))
        whole = Segment(
            slots, 0, n, None, masked=True, rows=(0,), queries=at, deltas=at, start=0, stop=n, everyone=True
        )
        self.segments = (whole,)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        turn = self.rotaries[layer].rotate
        turned = turn(keys, self.at)
        shape = CacheShape(len(keys), keys.shape[-1], values.shape[-1])
        return attend(query, lambda at: (turned[:, at], values[:, at]), shape, self.segments, turn, softmax)
