"""Fields of a configuration that are more than one key renamed, for each architecture that has such.

Each function takes the metadata and the fields so far (`rope_parameters` among them), and returns what comes to them.
"""

from __future__ import annotations

from kvorum.errors import UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.models.gguf.metadata import Metadata


def llama(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    """A window makes it a Mistral; nothing else of the two differs."""
    window = metadata.whole("attention.sliding_window", 0)
    return {"model_type": "mistral", "sliding_window": window} if window else {}


def mixtral(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    return {
        "num_local_experts": metadata.count("expert_count"),
        "num_experts_per_tok": metadata.count("expert_used_count"),
    }


def qwen_moe(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    return {
        "num_experts": metadata.count("expert_count"),
        "num_experts_per_tok": metadata.count("expert_used_count"),
        "moe_intermediate_size": metadata.count("expert_feed_forward_length"),
    }


def qwen2_moe(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    shared = metadata.count("expert_shared_feed_forward_length")
    return qwen_moe(metadata, config) | {"shared_expert_intermediate_size": shared}


def _layer_types(metadata: Metadata, layers: int, every: int) -> list[Json]:
    """Which layers have a window: as the file says layer by layer, or all but the last of each `every` (its number)."""
    given = metadata.take("attention.sliding_window_pattern")
    if isinstance(given, list):
        if len(given) != layers:
            raise UnsupportedModel(f"{metadata.file.path} has a sliding_window_pattern of {len(given)} layers.")
        slides = [bool(item) for item in given]
    else:
        every = metadata.count("attention.sliding_window_pattern", every)
        slides = [layer % every < every - 1 for layer in range(layers)]
    return ["sliding_attention" if item else "full_attention" for item in slides]


def _by_type(metadata: Metadata, config: dict[str, Json], default: float) -> dict[str, Json]:
    """Layers with a window rotate by their own base, unscaled."""
    theta = metadata.positive("rope.freq_base_swa", default)
    full = config["rope_parameters"]
    return {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": theta}}


def _query_scale(metadata: Metadata, config: dict[str, Json], wide: int) -> int:
    """What the queries are divided by the root of; the 27B models, of `wide` layers, divide otherwise."""
    hidden, heads = metadata.count("embedding_length"), metadata.count("attention.head_count")
    if config["num_hidden_layers"] == wide:
        return hidden // heads
    return metadata.count("attention.key_length", hidden // heads)


def gemma2(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    _one_base(metadata)
    return {
        "attn_logit_softcapping": metadata.positive("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.positive("final_logit_softcapping", 30.0),
        "sliding_window": metadata.count("attention.sliding_window", 4096),
        "layer_types": _layer_types(metadata, metadata.count("block_count"), 2),
        "query_pre_attn_scalar": _query_scale(metadata, config, 46),
    }


def gemma3(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    layers = metadata.count("block_count")
    window = metadata.whole("attention.sliding_window", 0)
    types = _layer_types(metadata, layers, 6)
    return {
        "final_logit_softcapping": metadata.number("final_logit_softcapping", 0.0) or None,
        "sliding_window": window or 1,
        "layer_types": types if window else ["full_attention"] * layers,
        "query_pre_attn_scalar": _query_scale(metadata, config, 62),
        "rope_parameters": _by_type(metadata, config, 10000.0),
    }


def phi3(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    original = metadata.count("rope.scaling.original_context_length", metadata.count("context_length"))
    return {
        "sliding_window": metadata.whole("attention.sliding_window", 0) or None,
        "original_max_position_embeddings": original,
    }


def granite(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    width = metadata.count("embedding_length") // metadata.count("attention.head_count")
    if not metadata.flag("rope.scaling.finetuned", True):
        raise UnsupportedModel(f"{metadata.file.path} says that its queries and keys are not rotated at all.")
    return {
        "logits_scaling": metadata.positive("logit_scale"),
        "residual_multiplier": metadata.number("residual_scale", 0.0) or 1.0,
        "embedding_multiplier": metadata.number("embedding_scale", 0.0) or 1.0,
        "attention_multiplier": metadata.number("attention.scale", 0.0) or width**-0.5,
    }


def olmo2(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    """With a window it is OLMo 3, whose layers without one alone have a scaled rotation."""
    window = metadata.whole("attention.sliding_window", 0)
    base = metadata.positive("rope.freq_base", 10000.0)
    rotations = _by_type(metadata, config, base)
    types = _layer_types(metadata, metadata.count("block_count"), 4)
    if not window:
        return {}
    return {
        "model_type": "olmo3",
        "sliding_window": window,
        "layer_types": types,
        "rope_parameters": rotations,
    }


def stablelm(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    return {"use_parallel_residual": metadata.flag("use_parallel_residual", False)}


def cohere(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    return {"logit_scale": metadata.positive("logit_scale")}


def cohere2(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    _one_base(metadata)
    return {
        "logit_scale": metadata.positive("logit_scale"),
        "sliding_window": metadata.count("attention.sliding_window"),
        "layer_types": _layer_types(metadata, metadata.count("block_count"), 4),
    }


def mistral3(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    """Ministral 3 scales its queries beyond the original context; without that it is a Mistral."""
    beta = metadata.number("attention.temperature_scale", 0.0)
    rope = config["rope_parameters"]
    if not beta:
        return {"sliding_window": None}  # transformers' own default is a window
    if not isinstance(rope, dict) or rope["rope_type"] != "yarn":
        raise UnsupportedModel(f"{metadata.file.path} has an attention.temperature_scale without yarn.")
    return {"model_type": "ministral3", "rope_parameters": rope | {"llama_4_scaling_beta": beta}}


def _one_base(metadata: Metadata) -> None:
    """Raise `UnsupportedModel` where layers with a window rotate by another base."""
    base = metadata.positive("rope.freq_base", 10000.0)
    if metadata.positive("rope.freq_base_swa", base) != base:
        raise UnsupportedModel(f"{metadata.file.path} asks for another rope.freq_base_swa than rope.freq_base.")
