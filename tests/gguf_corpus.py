"""Small GGUF files made of tiny random transformers models, as llama.cpp's conversion writes them.

The names of tensors are the `gguf` package's own table, the keys are those its conversion scripts write, so this is
another path than the one that reads the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

Tensors = dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]]
INTERLEAVED = ("llama", "granite", "smollm3", "arcee", "mistral3")
PLUS_ONE = ("gemma", "gemma2", "gemma3", "nemotron")
TYPES = {  # of transformers, by the file's architecture
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "granite": "granite",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "mistral3": "mistral",
    "arcee": "arcee",
    "seed_oss": "seed_oss",
    "glm4": "glm4",
    "starcoder2": "starcoder2",
    "stablelm": "stablelm",
    "nemotron": "nemotron",
    "command-r": "cohere",
    "cohere2": "cohere2",
}


def byte_tokens() -> list[str]:
    """The byte alphabet of GPT-2's tokenizer, four marks, and what the merges make."""
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [256 + number for number in range(256 - len(letters))]
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    return [*marks, *map(chr, letters), *map(chr, other), "12", "ab", "abc"]


def byte_keys(pre: str = "llama-bpe") -> dict[str, Any]:
    tokens = byte_tokens()
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 4 + [1] * (len(tokens) - 4),
        "tokenizer.ggml.merges": ["1 2", "a b", "ab c"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 3,
        "tokenizer.ggml.add_bos_token": False,
    }


def piece_keys(**changes: Any) -> dict[str, Any]:
    """A SentencePiece vocabulary with bytes; scores fall with the length of a word's making."""
    words = ["▁", "a", "b", "c", "ab", "▁ab", "▁abc", "bc", "▁a", "e", "h", "t", "he", "▁t", "▁the", "é"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, "<|user|>", "[more]"]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(words))] + [0.0, 0.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words) + [3, 4],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        **changes,
    }


def tiny(arch: str, seed: int = 0, **changes: Any) -> Any:
    """A random model of an architecture whose logits notice everything: rotation, windows, biases, norms, scales."""
    shape: dict[str, Any] = {
        "vocab_size": len(byte_tokens()),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": arch in ("gemma", "gemma2", "gemma3", "smollm3", "command-r", "cohere2"),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "attn_implementation": "eager",
    }
    if arch.startswith("gemma"):
        shape |= {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
    if arch in ("gemma", "gemma3"):
        shape |= {"head_dim": 32, "query_pre_attn_scalar": 32}
    if arch == "gemma":
        del shape["query_pre_attn_scalar"], shape["sliding_window"]
    if arch in ("qwen3", "qwen3moe"):
        shape |= {"head_dim": 32}
    if arch in ("qwen2moe", "qwen3moe"):
        shape |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
        shape |= {"norm_topk_prob": arch == "qwen3moe", "shared_expert_intermediate_size": 64}
    if arch in ("seed_oss", "glm4", "mistral3"):
        shape |= {"head_dim": 16}
    if arch in ("glm4", "stablelm", "nemotron"):
        shape |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}
    if arch == "cohere2":
        shape |= {"sliding_window": 8}
    if arch == "mistral3":
        shape |= {"sliding_window": None}
    if arch == "granite":
        shape |= {"attention_multiplier": 0.3, "embedding_multiplier": 3.0}
        shape |= {"residual_multiplier": 0.4, "logits_scaling": 2.0}
    kind = changes.pop("model_type", TYPES[arch])
    config = AutoConfig.for_model(kind, **(shape | changes))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1 / math.sqrt(weight.shape[-1]))
            elif name.endswith("bias"):
                weight.normal_(0, 0.3)
            else:
                weight.normal_(0.0 if arch in PLUS_ONE else 1.0, 0.2)
    model.train(False)
    return model


def shape_keys(arch: str, config: Any) -> dict[str, Any]:
    """What the conversion writes of a configuration."""
    rope = dict(config.rope_parameters)
    local = rope.get("sliding_attention")
    full = rope.get("full_attention", rope)
    keys = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.freq_base": float(full["rope_theta"]),
    }
    for field_name in ("rms_norm_eps", "norm_eps", "layer_norm_eps", "norm_epsilon"):
        if hasattr(config, field_name):
            kind = "layer_norm_rms_epsilon" if field_name == "rms_norm_eps" else "layer_norm_epsilon"
            keys[f"attention.{kind}"] = getattr(config, field_name)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if arch in ("gemma", "gemma2", "gemma3", "qwen3", "qwen3moe", "seed_oss", "glm4", "mistral3"):
        keys |= {"attention.key_length": head, "attention.value_length": head}
    if arch in ("gemma", "gemma2"):
        del keys["rope.freq_base"]
    if arch in INTERLEAVED:
        keys |= {"vocab_size": config.vocab_size, "rope.dimension_count": head}
    if arch in ("gemma2", "gemma3", "olmo2", "cohere2") and getattr(config, "sliding_window", None):
        keys["attention.sliding_window"] = config.sliding_window
    if arch == "gemma2":
        keys["attn_logit_softcapping"] = config.attn_logit_softcapping
        keys["final_logit_softcapping"] = config.final_logit_softcapping
    if arch == "gemma3" and local is not None:
        keys["rope.freq_base_swa"] = float(local["rope_theta"])
    if arch == "olmo2" and config.model_type == "olmo3":
        keys["attention.sliding_window_pattern"] = [kind == "sliding_attention" for kind in config.layer_types]
    if arch == "granite":
        keys |= {"attention.scale": config.attention_multiplier, "embedding_scale": config.embedding_multiplier}
        keys |= {"residual_scale": config.residual_multiplier, "logit_scale": config.logits_scaling}
    if arch in ("phi3", "glm4", "stablelm", "nemotron"):
        keys["rope.dimension_count"] = int(full.get("partial_rotary_factor", 1.0) * head)
    if arch in ("command-r", "cohere2"):
        keys |= {"logit_scale": config.logit_scale, "rope.scaling.type": "none"}
    if arch == "stablelm":
        keys["use_parallel_residual"] = config.use_parallel_residual
    if full.get("llama_4_scaling_beta") is not None:
        keys["attention.temperature_scale"] = full["llama_4_scaling_beta"]
        keys["rope.scaling.yarn_log_multiplier"] = float(full["mscale_all_dim"])
    if arch == "phi3":
        keys["rope.scaling.original_context_length"] = full.get(
            "original_max_position_embeddings", config.max_position_embeddings
        )
        keys["attention.sliding_window"] = config.sliding_window or 0
    if experts := getattr(config, "num_local_experts", getattr(config, "num_experts", None)):
        keys |= {"expert_count": experts, "expert_used_count": config.num_experts_per_tok}
    if arch in ("qwen2moe", "qwen3moe"):
        keys["expert_feed_forward_length"] = config.moe_intermediate_size
    if arch == "qwen2moe":
        keys["expert_shared_feed_forward_length"] = config.shared_expert_intermediate_size
    if full["rope_type"] in ("linear", "yarn"):
        keys |= {"rope.scaling.type": full["rope_type"], "rope.scaling.factor": float(full["factor"])}
    if full["rope_type"] == "yarn":
        keys["rope.scaling.original_context_length"] = full["original_max_position_embeddings"]
        for ours, theirs in {
            "attn_factor": "attention_factor",
            "beta_fast": "beta_fast",
            "beta_slow": "beta_slow",
        }.items():
            if full.get(theirs) is not None:
                keys[f"rope.scaling.yarn_{ours}"] = float(full[theirs])
    if full["rope_type"] == "longrope":
        scale = config.max_position_embeddings / full["original_max_position_embeddings"]
        factor = math.sqrt(1 + math.log(scale) / math.log(full["original_max_position_embeddings"]))
        keys["rope.scaling.attn_factor"] = factor
    return {f"{arch}.{key}": value for key, value in keys.items()}


def extra_tensors(config: Any) -> dict[str, np.ndarray]:
    """The factors of a rotation, where the conversion writes them as tensors."""
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    if rope["rope_type"] == "longrope":
        return {
            f"rope_factors_{kind}.weight": np.array(rope[f"{kind}_factor"], np.float32) for kind in ("long", "short")
        }
    if rope["rope_type"] != "llama3":
        return {}
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, head, 2).float() / head)
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for frequency in frequencies:
        wave = 2 * math.pi / float(frequency)
        smooth = (rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]) / (
            rope["high_freq_factor"] - rope["low_freq_factor"]
        )
        between = 1 / ((1 - smooth) / rope["factor"] + smooth)
        factors.append(1.0 if wave < high else rope["factor"] if wave > low else between)
    return {"rope_freqs.weight": np.array(factors, np.float32)}


def quantised(weight: torch.Tensor, kind: str) -> np.ndarray:
    """Rows in blocks of `kind`; where the package has no writer for it, blocks of random codes."""
    quant = gguf.GGMLQuantizationType[kind]
    values = weight.numpy()
    try:
        return gguf.quantize(values, quant)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[quant]
        random = np.random.default_rng(len(values))
        raw = random.integers(0, 256, (*values.shape[:-1], values.shape[-1] // block, size), dtype=np.uint8)
        at, count = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q2_K": (80, 2), "Q3_K": (108, 1), "Q6_K": (208, 1)}.get(
            kind, (0, 1)
        )
        step = 1e-4
        for _ in range(2):  # the second time with steps that make weights as large as the model's
            raw[..., at : at + 2 * count] = np.full(count, step, np.float16).view(np.uint8)
            rows = raw.reshape(*values.shape[:-1], -1)
            step *= float(values.std() / gguf.dequantize(rows, quant).std())
        return rows


def file_tensors(arch: str, model: Any, kind: str = "F32") -> Tensors:
    """The model's tensors as a file has them; the model's own weights become those that the blocks stand for."""
    config = model.config
    names = gguf.get_tensor_name_map({v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    found: Tensors = {}

    def add(name: str, values: torch.Tensor, to: torch.Tensor | None) -> None:
        ours, leaf = name.rpartition(".")[::2]
        gguf_name = names.get_name(ours)
        assert gguf_name is not None, name
        quant = gguf.GGMLQuantizationType[kind]
        if (
            values.ndim > 1
            and values.shape[-1] % gguf.GGML_QUANT_SIZES[quant][0] == 0
            and "ffn_gate_inp" not in gguf_name
        ):
            raw = quantised(values, kind)
        else:
            quant = gguf.GGMLQuantizationType.F32
            raw = values.numpy().astype(np.float32)
        if to is not None and quant != gguf.GGMLQuantizationType.F32:
            to.copy_(torch.from_numpy(gguf.dequantize(raw, quant).astype(np.float32)).reshape(to.shape))
        count = heads.get(ours.rpartition(".")[2])
        if arch in INTERLEAVED and count is not None:
            raw = raw.reshape(count, 2, len(raw) // count // 2, *raw.shape[1:]).swapaxes(1, 2).reshape(raw.shape)
        found[f"{gguf_name}.{leaf}"] = (np.ascontiguousarray(raw), quant)

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in model.all_tied_weights_keys:
                continue
            values = weight.detach()
            if arch in PLUS_ONE and name.endswith("norm.weight"):
                values = values + 1
            if name.endswith("experts.gate_up_proj"):
                base = name.removesuffix("gate_up_proj").replace("mlp.experts.", "mlp.experts.")
                gate, up = weight.chunk(2, 1)
                add(f"{base}gate_proj.weight", gate.detach(), gate)
                add(f"{base}up_proj.weight", up.detach(), up)
            elif name.endswith("experts.down_proj"):
                add(f"{name}.weight", values, weight)
            else:
                add(name, values, weight)
    return found


@dataclass
class Contents:
    """What is written: changed by a case before it is."""

    arch: str
    keys: dict[str, Any]
    tensors: Tensors
    cut: Callable[[bytes], bytes] | None = None
    shards: int = 1
    only: tuple[int, ...] = ()
    model: Any = field(default=None)


def contents(arch: str, model: Any, kind: str = "F32", vocabulary: Mapping[str, Any] | None = None) -> Contents:
    """Everything of a file for `model`."""
    keys = {"general.name": "Tiny", "general.type": "model", **shape_keys(arch, model.config)}
    keys |= byte_keys() if vocabulary is None else vocabulary
    tensors = file_tensors(arch, model, kind)
    for name, values in extra_tensors(model.config).items():
        tensors[name] = (values, gguf.GGMLQuantizationType.F32)
    return Contents(arch, keys, tensors, model=model)


def save(path: Path, what: Contents) -> Path:
    """Write the file, or its shards; returns the path to load."""
    if what.shards > 1:
        names = list(what.tensors)
        paths = []
        for shard in range(what.shards):
            at = path.with_name(f"{path.stem}-{shard + 1:05d}-of-{what.shards:05d}.gguf")
            keys: dict[str, Any] = dict(what.keys) if shard == 0 else {}
            keys |= {"split.no": shard, "split.count": what.shards, "split.tensors.count": len(names)}
            if not what.only or shard in what.only:
                _save(at, what.arch, keys, {name: what.tensors[name] for name in names[shard :: what.shards]})
            paths.append(at)
        return paths[what.only[0] if what.only else 0]
    _save(path, what.arch, what.keys, what.tensors)
    if what.cut is not None:
        path.write_bytes(what.cut(path.read_bytes()))
    return path


_INT32 = ("tokenizer.ggml.token_type", "split.tensors.count")


def _save(path: Path, arch: str, keys: Mapping[str, Any], tensors: Tensors) -> None:
    writer = gguf.GGUFWriter(str(path), arch)
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int) and key in _INT32:
            writer.add_int32(key, value)
        elif isinstance(value, int) and key.startswith("split."):
            writer.add_uint16(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, (values, kind) in tensors.items():
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
