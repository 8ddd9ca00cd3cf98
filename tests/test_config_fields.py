"""Fields of config.json that folders of well-known models have and their classes do not know: none is refused.

Each set is what a published folder says beside the names that the class has. One value that is another is refused.
"""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from kvorum.errors import UnsupportedModel
from kvorum.models.config_fields import account

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 200, "pad_token_id": 0}
PUBLISHED: dict[str, dict[str, Any]] = {
    "falcon-3": {"model_type": "llama", "hidden_act": "silu", "activation": "swiglu", "rope_scaling": None},
    "vicuna": {"model_type": "llama", "max_sequence_length": 2048, "tokenizer_padding_side": "right"},
    "smollm2": {"model_type": "llama", "is_llama_config": True, "rope_interleaved": False},
    "phi-4-as-llama": {"model_type": "llama", "original_max_position_embeddings": 16384, "resid_pdrop": 0.0},
    "every-default-written-down": {
        "model_type": "llama",
        "use_bfloat16": False,
        "begin_suppress_tokens": None,
        "remove_invalid_values": False,
        "suppress_tokens": None,
        "typical_p": 1.0,
    },
    "gemma": {"model_type": "gemma", "head_dim": 16, "hidden_act": "gelu", "hidden_activation": None},
    "gemma-1.1": {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"},
    "gemma-2": {
        "model_type": "gemma2",
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 4096,
        "sliding_window_size": 4096,
        "cache_implementation": "hybrid",
    },
    "phi-4-mini": {"model_type": "phi3", "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False},
    "qwen3-coder": {"model_type": "qwen3_moe", "num_experts": 4, "use_qk_norm": True, "qkv_bias": False},
    "gpt-oss": {
        "model_type": "gpt_oss",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "experts_per_token": 2,
        "initial_context_length": 4096,
        "swiglu_limit": 7.0,
    },
    "starcoder2": {
        "model_type": "starcoder2",
        "hidden_act": "gelu_pytorch_tanh",
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": 1e-05,
        "norm_epsilon": 1e-05,
        "mlp_type": "default",
        "norm_type": "layer_norm",
        "scale_attention_softmax_in_fp32": True,
    },
    "deepseek-v2-lite": {"model_type": "deepseek_v2", "moe_layer_freq": 1, "aux_loss_alpha": 0.001, "seq_aux": True},
    "deepseek-v3": {"model_type": "deepseek_v3", "scoring_func": "sigmoid", "topk_method": "noaux_tc", "ep_size": 1},
    "granite-4": {"model_type": "granitemoehybrid", "normalization_function": "rmsnorm", "init_method": "mup"},
    "command-r7b": {
        "model_type": "cohere2",
        "position_embedding_type": "rope_gptj",
        "rotary_pct": 1.0,
        "use_gated_activation": True,
        "use_parallel_block": True,
    },
    "apertus": {"model_type": "apertus", "post_norm": False, "qk_norm": True},
    "gpt-j": {"model_type": "gptj", "rotary_dim": 8, "scale_attn_weights": True, "gradient_checkpointing": False},
}


def accounted(raw: dict[str, Any]) -> list[str]:
    config = AutoConfig.for_model(**raw)
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return account(raw, config, model_class)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_field_of_a_published_folder_is_refused(name: str) -> None:
    assert accounted(SIZES | PUBLISHED[name]) == []


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("falcon-3", "activation", "geglu"),
        ("gemma", "hidden_activation", "relu"),
        ("gemma-2", "sliding_window_size", 512),
        ("phi-4-mini", "full_attn_mod", 2),
        ("gpt-oss", "experts_per_token", 4),
        ("starcoder2", "layer_norm_epsilon", 1e-3),
        ("starcoder2", "norm_type", "rms_norm"),
        ("apertus", "post_norm", True),
        ("deepseek-v3", "scoring_func", "softmax_twice"),
    ],
)
def test_another_value_of_such_a_field_is_refused(name: str, field: str, value: object) -> None:
    with pytest.raises(UnsupportedModel, match=field):
        accounted(SIZES | PUBLISHED[name] | {field: value})
