"""The architectures that are read from GGUF files: how each is written down as a model of transformers.

One table entry an architecture: the fields of its configuration, the names of its tensors, what the conversion to GGUF
did to their values. Not covered: recurrent and hybrid architectures, which cannot be put together from blocks at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kvorum.errors import UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.models.gguf.metadata import Metadata

Computed = Callable[[Metadata, dict[str, Json]], dict[str, Json]]
"""Fields that are more than one key renamed, from the metadata and the fields so far (`rope_parameters` among them)."""

_WHOLE = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "feed_forward_length": "intermediate_size",
}

# The file's names, and the modules that the tensors belong to; those under `blk.N.` are a layer's.
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_FEED_FORWARD = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_NORMS_BEFORE = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_NORMS_AFTER = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
_NORMS_AROUND = {"attn_norm": "input_layernorm", "ffn_norm": "pre_feedforward_layernorm", **_NORMS_AFTER}
_DENSE = {**_OUTER, **_ATTENTION, **_FEED_FORWARD, **_NORMS_BEFORE}
_EXPERTS = {**_OUTER, **_ATTENTION, **_NORMS_BEFORE, "ffn_gate_inp": "mlp.gate"}
_SHARED_EXPERT = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_STACKED = {
    "mlp.experts.gate_up_proj": ("ffn_gate_exps", "ffn_up_exps"),
    "mlp.experts.down_proj": ("ffn_down_exps",),
}


@dataclass(frozen=True)
class Architecture:
    """One architecture of GGUF files, as transformers has it."""

    model_type: str
    tensors: Mapping[str, str]
    """The file's names without `blk.N.` and leaf, and the modules of the model that they belong to."""
    fixed: Mapping[str, Json] = field(default_factory=dict)
    """Fields that the architecture alone says."""
    computed: Computed | None = None
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Parameters that are several tensors of three dimensions side by side (the experts of a layer)."""
    whole: Mapping[str, str] = field(default_factory=lambda: _WHOLE)
    """Keys with a whole number above zero, and the fields that they are."""
    interleaved: bool = False
    """The rows of q and k lie in rotated pairs, and are put back into halves."""
    norms_plus_one: bool = False
    """The file's norms are one more than the model's."""
    partial: bool = False
    """Fewer dimensions than a head has may be rotated."""
    bias_fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fields that switch biases on, and the tensors that may have them; of those, what no layer has is zero."""


def _llama(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    """A window makes it a Mistral; nothing else of the two differs."""
    window = int(metadata.number("attention.sliding_window", 0))
    return {"model_type": "mistral", "sliding_window": window} if window else {}


def _mixtral(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    return {
        "num_local_experts": metadata.count("expert_count"),
        "num_experts_per_tok": metadata.count("expert_used_count"),
    }


def _qwen_moe(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    return {
        "num_experts": metadata.count("expert_count"),
        "num_experts_per_tok": metadata.count("expert_used_count"),
        "moe_intermediate_size": metadata.count("expert_feed_forward_length"),
    }


def _qwen2_moe(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    shared = metadata.count("expert_shared_feed_forward_length")
    return _qwen_moe(metadata, config) | {"shared_expert_intermediate_size": shared}


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


def _gemma2(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    base = metadata.positive("rope.freq_base", 10000.0)
    if metadata.positive("rope.freq_base_swa", base) != base:
        raise UnsupportedModel(f"{metadata.file.path} asks for another rope.freq_base_swa than rope.freq_base.")
    return {
        "attn_logit_softcapping": metadata.positive("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.positive("final_logit_softcapping", 30.0),
        "sliding_window": metadata.count("attention.sliding_window", 4096),
        "layer_types": _layer_types(metadata, metadata.count("block_count"), 2),
        "query_pre_attn_scalar": _query_scale(metadata, config, 46),
    }


def _gemma3(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    layers = metadata.count("block_count")
    window = int(metadata.number("attention.sliding_window", 0))
    types = _layer_types(metadata, layers, 6)
    return {
        "final_logit_softcapping": metadata.number("final_logit_softcapping", 0.0) or None,
        "sliding_window": window or 1,
        "layer_types": types if window else ["full_attention"] * layers,
        "query_pre_attn_scalar": _query_scale(metadata, config, 62),
        "rope_parameters": _by_type(metadata, config, 10000.0),
    }


def _phi3(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    original = metadata.count("rope.scaling.original_context_length", metadata.count("context_length"))
    return {
        "sliding_window": int(metadata.number("attention.sliding_window", 0)) or None,
        "original_max_position_embeddings": original,
    }


def _granite(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    width = metadata.count("embedding_length") // metadata.count("attention.head_count")
    if not metadata.flag("rope.scaling.finetuned", True):
        raise UnsupportedModel(f"{metadata.file.path} says that its queries and keys are not rotated at all.")
    return {
        "logits_scaling": metadata.positive("logit_scale"),
        "residual_multiplier": metadata.number("residual_scale", 0.0) or 1.0,
        "embedding_multiplier": metadata.number("embedding_scale", 0.0) or 1.0,
        "attention_multiplier": metadata.number("attention.scale", 0.0) or width**-0.5,
    }


def _olmo2(metadata: Metadata, config: dict[str, Json]) -> dict[str, Json]:
    """With a window it is OLMo 3, whose layers without one alone have a scaled rotation."""
    window = int(metadata.number("attention.sliding_window", 0))
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


_LLAMA_BIASES = {
    "attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "mlp_bias": ("ffn_gate", "ffn_up", "ffn_down"),
}
_GELU: dict[str, Json] = {"hidden_activation": "gelu_pytorch_tanh"}

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", _DENSE, interleaved=True, computed=_llama, bias_fields=_LLAMA_BIASES),
    "qwen2": Architecture("qwen2", _DENSE),
    "qwen3": Architecture("qwen3", {**_DENSE, **_QK_NORMS}),
    "qwen2moe": Architecture(
        "qwen2_moe",
        {**_EXPERTS, **_SHARED_EXPERT},
        fixed={"norm_topk_prob": False},
        computed=_qwen2_moe,
        stacked=_STACKED,
    ),
    "qwen3moe": Architecture(
        "qwen3_moe",
        {**_EXPERTS, **_QK_NORMS},
        fixed={"norm_topk_prob": True},
        computed=_qwen_moe,
        stacked=_STACKED,
    ),
    "gemma": Architecture("gemma", _DENSE, fixed=_GELU, norms_plus_one=True),
    "gemma2": Architecture(
        "gemma2",
        {**_OUTER, **_ATTENTION, **_FEED_FORWARD, **_NORMS_AROUND},
        fixed=_GELU,
        computed=_gemma2,
        norms_plus_one=True,
    ),
    "gemma3": Architecture(
        "gemma3_text",
        {**_OUTER, **_ATTENTION, **_QK_NORMS, **_FEED_FORWARD, **_NORMS_AROUND},
        fixed=_GELU,
        computed=_gemma3,
        norms_plus_one=True,
    ),
    "phi3": Architecture(
        "phi3",
        {
            **_OUTER,
            **_NORMS_BEFORE,
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        computed=_phi3,
        partial=True,
    ),
    "granite": Architecture("granite", _DENSE, interleaved=True, computed=_granite, bias_fields=_LLAMA_BIASES),
    "smollm3": Architecture("smollm3", _DENSE, fixed={"no_rope_layer_interval": 4}, interleaved=True),
    "olmo2": Architecture(
        "olmo2", {**_OUTER, **_ATTENTION, **_QK_NORMS, **_FEED_FORWARD, **_NORMS_AFTER}, computed=_olmo2
    ),
}

# Not an entry of its own in files: what says `llama` and has experts.
MIXTRAL = Architecture("mixtral", _EXPERTS, interleaved=True, computed=_mixtral, stacked=_STACKED)
