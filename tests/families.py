"""Tiny random models of many families, for every test that must hold whatever the architecture.

`ACCEPTED` maps a variant's name to its model type and configuration; `REFUSED` maps it to the same and to
words that the refusal must hold. `build(name)` returns a fresh transformers model: same name, seed and dtype,
same weights. All weights are random, norms, biases and sinks too, so that nothing is exact by initialisation
alone; attention is far from uniform. Windows are short, so that a sequence of twenty tokens leaves them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB = 96


def _options(**changes: Any) -> dict[str, Any]:
    """A small decoder with three query heads per key head and an odd number of layers."""
    options: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return {**options, **changes}


def _rope(kind: str = "default", **parameters: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **parameters}


_YARN = _rope("yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=32.0, beta_slow=1.0)
_LLAMA3 = _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
_LONGROPE = _rope(
    "longrope",
    short_factor=[1.0, 1.1, 1.3, 1.7],
    long_factor=[1.0, 2.0, 4.0, 8.0],
    original_max_position_embeddings=64,
    factor=4.0,
)
_MLA = {
    "head_dim": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
_GEMMA4 = {
    "head_dim": 12,
    "global_head_dim": 16,
    "sliding_window": 7,
    "vocab_size_per_layer_input": VOCAB,
    "hidden_size_per_layer_input": 8,
}
_SHARED = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
_SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]

ACCEPTED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _options()),
    "llama-mha-bias": ("llama", _options(num_key_value_heads=6, attention_bias=True)),
    "llama3-rope": ("llama", _options(rope_parameters=_LLAMA3)),
    "llama-linear": ("llama", _options(rope_parameters=_rope("linear", factor=4.0))),
    "llama-yarn": ("llama", _options(rope_parameters=_YARN)),
    "mistral": ("mistral", _options(sliding_window=7, head_dim=8)),
    "mixtral": ("mixtral", _options(num_local_experts=4, num_experts_per_tok=2)),
    "ministral3": (
        "ministral3",
        _options(head_dim=8, rope_parameters={**_YARN, "llama_4_scaling_beta": 0.1}),
    ),
    "qwen2": ("qwen2", _options()),
    "qwen2-sliding": ("qwen2", _options(use_sliding_window=True, sliding_window=6, max_window_layers=1)),
    "qwen3": ("qwen3", _options(head_dim=16)),
    "qwen3-moe": (
        "qwen3_moe",
        _options(head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    ),
    "phi": ("phi", _options(partial_rotary_factor=0.5, num_key_value_heads=6)),
    "phi3": ("phi3", _options(sliding_window=9)),
    "phi3-longrope": (
        "phi3",
        _options(rope_parameters=_LONGROPE, original_max_position_embeddings=64),
    ),
    "gpt-neox": ("gpt_neox", _options(num_key_value_heads=6, rotary_pct=0.5)),
    "glm": ("glm", _options(head_dim=8)),
    "glm4": ("glm4", _options(head_dim=8)),
    "glm4-moe": (
        "glm4_moe",
        _options(head_dim=8, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, use_qk_norm=True),
    ),
    "cohere": ("cohere", _options(logit_scale=0.25, use_qk_norm=True)),
    "cohere2": ("cohere2", _options(sliding_window=7, layer_types=_SLIDING)),
    "gemma": ("gemma", _options(head_dim=12)),
    "gemma2": (
        "gemma2",
        _options(
            head_dim=12,
            sliding_window=7,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=5.0,
            query_pre_attn_scalar=10,
        ),
    ),
    "gemma3": (
        "gemma3_text",
        _options(
            head_dim=12,
            sliding_window=7,
            layer_types=_SLIDING,
            query_pre_attn_scalar=10,
            rope_parameters={
                "full_attention": _rope("linear", factor=8.0, rope_theta=1e6),
                "sliding_attention": _rope(),
            },
        ),
    ),
    "gpt-oss": (
        "gpt_oss",
        _options(head_dim=8, sliding_window=6, num_local_experts=4, num_experts_per_tok=2, rope_parameters=_YARN),
    ),
    "olmo2": ("olmo2", _options()),
    "olmo3": ("olmo3", _options(sliding_window=7, layer_types=_SLIDING)),
    "smollm3": ("smollm3", _options(no_rope_layers=[1, 0, 1])),
    "exaone4": ("exaone4", _options(sliding_window=6, layer_types=_SLIDING)),
    "llama4": (
        "llama4_text",
        _options(
            head_dim=8,
            intermediate_size_mlp=64,
            num_local_experts=4,
            no_rope_layers=[1, 1, 0],
            attention_chunk_size=64,
            floor_scale=64,
            interleave_moe_layer_step=2,
        ),
    ),
    "deepseek-v2": ("deepseek_v2", _options(**_MLA)),
    "deepseek-v3": ("deepseek_v3", _options(**_MLA, n_group=2, topk_group=1)),
    "stablelm": ("stablelm", _options(partial_rotary_factor=0.5, qk_layernorm=True, use_qkv_bias=True)),
    "granite": (
        "granite",
        _options(attention_multiplier=0.2, logits_scaling=3.0, embedding_multiplier=2.0, residual_multiplier=0.7),
    ),
    "starcoder2": ("starcoder2", _options(sliding_window=7)),
    "nemotron": ("nemotron", _options(partial_rotary_factor=0.5)),
    "helium": ("helium", _options(head_dim=8)),
    "ernie4.5": ("ernie4_5", _options(head_dim=8)),
    "arcee": ("arcee", _options()),
    "seed-oss": ("seed_oss", _options(head_dim=8)),
    "apertus": ("apertus", _options(rope_parameters=_LLAMA3)),
    "minimax-m2": (
        "minimax_m2",
        _options(head_dim=8, num_local_experts=4, num_experts_per_tok=2),
    ),
    "gemma3n": (
        "gemma3n_text",
        _options(
            head_dim=12,
            num_hidden_layers=4,
            num_kv_shared_layers=1,
            sliding_window=7,
            vocab_size_per_layer_input=VOCAB,
            hidden_size_per_layer_input=8,
            laurel_rank=4,
            intermediate_size=64,
            altup_num_inputs=2,
            layer_types=["sliding_attention", "full_attention", "full_attention", "full_attention"],
        ),
    ),
    "gemma4": ("gemma4_text", _options(**_GEMMA4)),
    "gemma4-shared": (
        "gemma4_text",
        _options(**{**_GEMMA4, "num_hidden_layers": 4, "num_kv_shared_layers": 2}, layer_types=_SHARED),
    ),
    "persimmon": ("persimmon", _options(num_key_value_heads=6, partial_rotary_factor=0.5)),
    "olmoe": ("olmoe", _options(num_experts=4, num_experts_per_tok=2)),
    "nanochat": ("nanochat", _options()),
    "granitemoe": ("granitemoe", _options()),
    "qwen2-moe": (
        "qwen2_moe",
        _options(
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
            use_sliding_window=True,
            sliding_window=6,
            max_window_layers=2,
        ),
    ),
    "phimoe": (
        "phimoe",
        _options(num_local_experts=4, num_experts_per_tok=2, sliding_window=6, attention_bias=True, lm_head_bias=True),
    ),
    "minicpm3": ("minicpm3", _options(**_MLA)),
}

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama-dynamic": (
        "llama",
        _options(rope_parameters=_rope("dynamic", factor=2.0)),
        "dynamic NTK",
    ),
    "gpt2": (
        "gpt2",
        {"vocab_size": VOCAB, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 128},
        "positions",
    ),
    "opt": ("opt", _options(ffn_dim=64, word_embed_proj_dim=48), "positions"),
    "bloom": ("bloom", {"vocab_size": VOCAB, "hidden_size": 48, "n_layer": 2, "n_head": 4}, "position"),
    "mamba": ("mamba", {"vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 2}, "linear_attention"),
    "bamba": (
        "bamba",
        _options(mamba_n_heads=4, mamba_d_head=24, attn_layer_indices=[1]),
        "linear_attention",
    ),
    "qwen3-next": ("qwen3_next", _options(), "linear_attention"),
    "falcon-h1": (
        "falcon_h1",
        _options(mamba_d_ssm=48, mamba_n_heads=4, mamba_d_head=12, mamba_d_state=8, mamba_chunk_size=8),
        "hybrid",
    ),
    "lfm2": ("lfm2", _options(layer_types=["conv", "full_attention", "conv"]), "conv"),
    "falcon": ("falcon", _options(num_ln_in_parallel_attn=1), "on its own"),
    "hunyuan": ("hunyuan_v1_dense", _options(head_dim=8), "fixed rotation"),
    "gpt-j": (
        "gptj",
        {"vocab_size": VOCAB, "n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
        "attention interface|fixed rotation",  # from 5.24 on it uses the interface, and turns pairs by its own means
    ),
    "deepseek-v3.2": ("deepseek_v32", _options(**_MLA, n_group=2, topk_group=1), "indexed_attention"),
    "jamba": ("jamba", _options(), "linear_attention"),
    "rwkv": ("rwkv", {"vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 2}, "position ids"),
}


def build(name: str, dtype: torch.dtype = torch.float32, seed: int = 0, *, device: str = "cpu") -> PreTrainedModel:
    """A fresh random model of the variant `name`, in evaluation mode, with transformers' eager attention."""
    kind, options = ACCEPTED[name] if name in ACCEPTED else REFUSED[name][:2]
    config = AutoConfig.for_model(kind, **options)
    if dtype == torch.float64:  # torch has no grouped matrix product in float64
        config._experts_implementation = "eager"
    with torch.random.fork_rng():  # what transformers draws itself: sinks
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
    _randomise(model, torch.Generator().manual_seed(seed))
    torch.nn.Module.to(model, device)
    model.eval()
    return model


@torch.no_grad()
def _randomise(model: PreTrainedModel, generator: torch.Generator) -> None:
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim < 2:  # norms, biases, sinks
            parameter.add_((0.3 * noise).to(parameter.dtype))
        elif id(parameter) in embeddings:
            parameter.copy_(noise)
        else:
            parameter.copy_(noise / math.sqrt(parameter.shape[-1]))


def random_ids(count: int, seed: int = 0) -> Tensor:
    """Token ids [count]."""
    return torch.randint(3, VOCAB, (count,), generator=torch.Generator().manual_seed(seed))
