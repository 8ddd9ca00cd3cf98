"""The rotation that a GGUF file asks for, in the words of a transformers configuration (`rope_parameters`).

Sources: llama.cpp's loader and context (see `keys.VERSION`) for what the keys do, its conversion scripts for what they
were written from. Factors by frequency (`rope_freqs.weight`, as Llama 3.1 has them) become a `longrope` whose short and
long factors are the same, which is exactly a division of each frequency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.models.gguf.file import GGUFTensor
from kvorum.models.gguf.metadata import Metadata

FACTOR_TENSORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")


def rope_parameters(metadata: Metadata, tensors: Mapping[str, GGUFTensor], rotated: int) -> dict[str, Json]:
    """What rotates `rotated` dimensions of each head. Raises `UnsupportedModel` for what cannot be said so."""
    kind = metadata.text("rope.scaling.type")
    # a factor of zero counts as none
    old = metadata.number("rope.scale_linear", 0.0)
    factor = metadata.number("rope.scaling.factor", old) or 1.0
    attention = metadata.positive("rope.scaling.attn_factor", 1.0)
    context = metadata.count("context_length")
    original = metadata.count("rope.scaling.original_context_length", context)
    freqs, short, long = (_factors(metadata, tensors, name, rotated // 2) for name in FACTOR_TENSORS)
    base: dict[str, Json] = {"rope_theta": metadata.positive("rope.freq_base", 10000.0)}

    if kind == "yarn":
        if freqs or short or long:
            raise _refused(metadata, f"a rotation scaled by yarn and by {', '.join(FACTOR_TENSORS)} at once")
        return base | _yarn(metadata, factor, original, attention)
    if kind not in (None, "none", "linear", "longrope"):
        raise _refused(metadata, f"a rope scaling of type {kind!r}")
    for name in ("ext_factor", "attn_factor", "beta_fast", "beta_slow", "log_multiplier"):
        if (key := f"rope.scaling.yarn_{name}") in metadata:
            raise _refused(metadata, f"{metadata.prefix}{key} without a rope scaling of type yarn")
    if (short is None) != (long is None) or (kind == "longrope" and short is None):
        raise ModelFileError(
            f"{metadata.file.path} cannot be run: of rope_factors_short.weight and rope_factors_long.weight "
            "one or both are missing."
        )
    if short and long:
        if freqs or factor != 1.0:
            raise _refused(metadata, "a rotation scaled by LongRoPE's factors and otherwise at once")
        return base | _longrope(short, long, original, attention)
    if kind == "none":
        factor = 1.0
    if freqs or attention != 1.0:
        constant = [value * factor for value in freqs or [1.0] * (rotated // 2)]
        return base | _longrope(constant, constant, context, attention)
    if factor == 1.0:
        return base | {"rope_type": "default"}
    return base | {"rope_type": "linear", "factor": factor}


def _longrope(short: list[float], long: list[float], original: int, attention: float) -> dict[str, Json]:
    return {
        "rope_type": "longrope",
        "short_factor": [*short],
        "long_factor": [*long],
        "factor": 1.0,
        "original_max_position_embeddings": original,
        "attention_factor": attention,
    }


def _yarn(metadata: Metadata, factor: float, original: int, attention: float) -> dict[str, Json]:
    def temperature(times: float) -> float:
        return 0.1 * times * math.log(factor) + 1.0 if factor > 1 else 1.0

    log_multiplier = metadata.number("rope.scaling.yarn_log_multiplier", 0.0)
    given = metadata.number("rope.scaling.yarn_attn_factor", 0.0)
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original,
        "beta_fast": metadata.positive("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": metadata.positive("rope.scaling.yarn_beta_slow", 1.0),
        "attention_factor": attention * (given or temperature(1.0) / temperature(log_multiplier))
        if log_multiplier or given
        else attention * temperature(1.0),
    }


def _factors(metadata: Metadata, tensors: Mapping[str, GGUFTensor], name: str, count: int) -> list[float] | None:
    if name not in tensors:
        return None
    factors: list[float] = tensors[name].dequantize().flatten().tolist()
    if len(factors) != count or not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise ModelFileError(
            f"{metadata.file.path} cannot be run: {name} must hold {count} numbers above zero, one for each frequency."
        )
    return factors


def _refused(metadata: Metadata, what: str) -> UnsupportedModel:
    return UnsupportedModel(f"{metadata.file.path} asks for {what}, which is not computed here.")
