"""The architectures that are read from GGUF files: how each is written down as a model of transformers.

One table entry an architecture: the fields of its configuration, the names of its tensors, what the conversion to GGUF
did to their values. Not covered: recurrent and hybrid architectures, which cannot be put together from blocks at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kvorum.jsontypes import Json
from kvorum.models.gguf import fields
from kvorum.models.gguf.metadata import Metadata

Computed = Callable[[Metadata, dict[str, Json]], dict[str, Json]]
"""One of `fields`."""

# Keys with a whole number above zero, and the fields that they are.
WHOLE = {
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
_UP_DOWN = {"ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_LAYER_NORM = "attention.layer_norm_epsilon"
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
    interleaved: bool = False
    """The rows of q and k lie in rotated pairs, and are put back into halves."""
    epsilon: tuple[str, str] = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
    """The key and the field of what keeps norms from dividing by nothing."""
    norms_plus_one: bool = False
    """The file's norms are one more than the model's."""
    partial: bool = False
    """Fewer dimensions than a head has may be rotated."""
    own_output: bool = False
    """The output layer is always a tensor of its own; in other files, one that is missing is the embedding."""
    bias_fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fields that switch biases on, and the tensors that may have them; of those, what no layer has is zero."""


_LLAMA_BIASES = {
    "attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "mlp_bias": ("ffn_gate", "ffn_up", "ffn_down"),
}
_GELU: dict[str, Json] = {"hidden_activation": "gelu_pytorch_tanh"}

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", _DENSE, interleaved=True, computed=fields.llama, bias_fields=_LLAMA_BIASES),
    "qwen2": Architecture("qwen2", _DENSE),
    "qwen3": Architecture("qwen3", {**_DENSE, **_QK_NORMS}),
    "qwen2moe": Architecture(
        "qwen2_moe",
        {**_EXPERTS, **_SHARED_EXPERT},
        fixed={"norm_topk_prob": False},
        computed=fields.qwen2_moe,
        stacked=_STACKED,
        own_output=True,
    ),
    "qwen3moe": Architecture(
        "qwen3_moe",
        {**_EXPERTS, **_QK_NORMS},
        fixed={"norm_topk_prob": True},
        computed=fields.qwen_moe,
        stacked=_STACKED,
    ),
    "gemma": Architecture("gemma", _DENSE, fixed=_GELU, norms_plus_one=True),
    "gemma2": Architecture(
        "gemma2",
        {**_OUTER, **_ATTENTION, **_FEED_FORWARD, **_NORMS_AROUND},
        fixed=_GELU,
        computed=fields.gemma2,
        norms_plus_one=True,
    ),
    "gemma3": Architecture(
        "gemma3_text",
        {**_OUTER, **_ATTENTION, **_QK_NORMS, **_FEED_FORWARD, **_NORMS_AROUND},
        fixed=_GELU,
        computed=fields.gemma3,
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
        computed=fields.phi3,
        partial=True,
    ),
    "granite": Architecture("granite", _DENSE, interleaved=True, computed=fields.granite, bias_fields=_LLAMA_BIASES),
    "smollm3": Architecture("smollm3", _DENSE, fixed={"no_rope_layer_interval": 4}, interleaved=True),
    "olmo2": Architecture(
        "olmo2",
        {**_OUTER, **_ATTENTION, **_QK_NORMS, **_FEED_FORWARD, **_NORMS_AFTER},
        computed=fields.olmo2,
        own_output=True,
    ),
    "mistral3": Architecture("mistral", _DENSE, interleaved=True, computed=fields.mistral3),
    "arcee": Architecture(
        "arcee", {**_OUTER, **_ATTENTION, **_UP_DOWN, **_NORMS_BEFORE}, interleaved=True, bias_fields=_LLAMA_BIASES
    ),
    "seed_oss": Architecture(
        "seed_oss",
        {
            **_OUTER,
            **_ATTENTION,
            **_FEED_FORWARD,
            "attn_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
        },
        bias_fields={"attention_bias": ("attn_q", "attn_k", "attn_v"), "attention_out_bias": ("attn_output",)},
    ),
    "glm4": Architecture(
        "glm4",
        {
            **_OUTER,
            **_ATTENTION,
            **_NORMS_BEFORE,
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        partial=True,
        bias_fields={"attention_bias": ("attn_q", "attn_k", "attn_v")},
    ),
    "starcoder2": Architecture(
        "starcoder2",
        {**_OUTER, **_ATTENTION, **_NORMS_BEFORE, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        epsilon=(_LAYER_NORM, "norm_epsilon"),
        bias_fields={"use_bias": (*_ATTENTION, "ffn_up", "ffn_down")},
    ),
    "stablelm": Architecture(
        "stablelm",
        _DENSE,
        epsilon=(_LAYER_NORM, "layer_norm_eps"),
        computed=fields.stablelm,
        partial=True,
        own_output=True,
        bias_fields={"use_qkv_bias": ("attn_q", "attn_k", "attn_v")},
    ),
    "nemotron": Architecture(
        "nemotron",
        {**_OUTER, **_ATTENTION, **_UP_DOWN, **_NORMS_BEFORE},
        epsilon=(_LAYER_NORM, "norm_eps"),
        norms_plus_one=True,
        partial=True,
        own_output=True,
        bias_fields=_LLAMA_BIASES,
    ),
    "command-r": Architecture(
        "cohere",
        {**_OUTER, **_ATTENTION, **_FEED_FORWARD, "attn_norm": "input_layernorm"},
        epsilon=(_LAYER_NORM, "layer_norm_eps"),
        computed=fields.cohere,
    ),
    "cohere2": Architecture(
        "cohere2",
        {**_OUTER, **_ATTENTION, **_FEED_FORWARD, "attn_norm": "input_layernorm"},
        epsilon=(_LAYER_NORM, "layer_norm_eps"),
        computed=fields.cohere2,
    ),
}

# Not an entry of its own in files: what says `llama` and has experts.
MIXTRAL = Architecture("mixtral", _EXPERTS, interleaved=True, computed=fields.mixtral, stacked=_STACKED)
