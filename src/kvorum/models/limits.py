"""What a configuration says already: models that cannot be exact over views, and lengths up to which others are."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from kvorum.errors import UnsupportedModel

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
        if rope.get("rope_type") == "longrope" or rope.get("llama_4_scaling_beta") is not None:
            positions.append(int(original))
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        positions.append(int(config.attention_chunk_size))
    if getattr(config, "attn_temperature_tuning", False):
        # Llama 4 scales queries by log1p(floor((index + 1) / floor_scale)), index counted in the packed batch
        positions.append(int(config.floor_scale) - 1)
        tokens.append(int(config.floor_scale) - 1)
    return min(positions, default=None), min(tokens, default=None)
