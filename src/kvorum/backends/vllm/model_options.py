"""What vLLM is told of a model beside its folder, so that it computes what transformers does; and what it cannot.

A folder that transformers wrote leaves out what is always so in its file of a type, and vLLM's files look for it. Where
vLLM's own file of a type leaves something out, its backend for transformers' files computes it. Each line here is held
by ``tests/vllm/test_vllm_families.py``, which also looks for others that should be here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kvorum.errors import UnsupportedModel
from kvorum.jsontypes import Json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

REFUSED: Mapping[str, str] = {
    "gemma3n_text": "vLLM's file of it leaves out what each token gives to each layer",
    "minicpm3": "vLLM gives it other logits than transformers does",
    "phimoe": "vLLM's file of it leaves out the bias of the output layer",
}
"""Model types that vLLM computes otherwise than transformers, beyond rounding, whatever it is told."""

Options = dict[str, Json]
"""Fields of vLLM's ``EngineArgs``."""


def refuse(name: str, text: PreTrainedConfig, stages: int) -> None:
    """``text``: the configuration of the language model; ``stages``: over how many its layers are to be laid out.

    Raises:
        UnsupportedModel: vLLM does not compute such a model as transformers does.
    """
    why = REFUSED.get(text.model_type)
    if stages > 1 and getattr(text, "num_kv_shared_layers", None):
        raise UnsupportedModel(
            f"{name} has layers that take their keys and values from others, and these must be on one stage; take "
            "pipeline_parallel=1."
        )
    if why is not None:
        raise UnsupportedModel(f"{name} is of type {text.model_type}, and {why}; take backend='local'.")


def refuse_without_plan(name: str, text: PreTrainedConfig) -> None:
    """For a model that vLLM runs on transformers' files, over several processes a layer.

    Raises:
        UnsupportedModel: transformers does not say how to cut it; what vLLM then guesses may be wrong without a word.
    """
    if not getattr(text, "base_model_tp_plan", None):
        raise UnsupportedModel(
            f"{name} runs on transformers' files inside vLLM, and these do not say how models of type "
            f"{text.model_type} are cut by their heads; take pipeline_parallel, with tensor_parallel=1."
        )


def model_options(config: PreTrainedConfig, given: Mapping[str, Json], *, cpu: bool) -> Options:
    """What vLLM is told of a model with that configuration; ``given``, which somebody has asked for, comes first."""
    text = config.get_text_config()
    options: Options = dict(given)
    if _by_transformers(text):
        options.setdefault("model_impl", "transformers")
    overrides = _overrides(text) if text is config else {}  # else they would have to stand one level deeper
    asked = options.get("hf_overrides") or {}
    if overrides and isinstance(asked, Mapping):
        options["hf_overrides"] = {**overrides, **asked}
    compilation = options.get("compilation_config") or {}
    if cpu and getattr(text, "kv_lora_rank", None) and isinstance(compilation, Mapping):
        # vLLM's rotation for CPUs takes queries for contiguous, and in expanded MLA they are a part of wider rows
        told = compilation.get("custom_ops")
        ops = [*(told if isinstance(told, list) else ()), "-rotary_embedding"]
        options["compilation_config"] = {**compilation, "custom_ops": ops}
    return options


def _by_transformers(text: PreTrainedConfig) -> bool:
    """Whether vLLM's own file of the type lacks something that its backend for transformers' files has."""
    norms = text.model_type == "stablelm" and bool(text.qk_layernorm)  # norms of queries and keys
    return norms or bool(text.model_type == "apertus")  # whose own file holds the activation's parameters in bfloat16


def _overrides(text: PreTrainedConfig) -> Options:
    """Fields that vLLM's file of a type looks for in a configuration, and transformers' does without."""
    kinds = set(getattr(text, "layer_types", None) or ())
    if text.model_type == "qwen2" and len(kinds) > 1:  # it refuses windows in some layers; here attention has them
        return {"max_window_layers": text.num_hidden_layers}
    if text.model_type == "deepseek_v2" and text.topk_method == "greedy":  # it knows of choices among groups alone
        return {"n_group": 1, "topk_group": 1}
    if text.model_type == "deepseek_v3":
        return {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}
    if text.model_type == "minimax_m2":
        part = (text.rope_parameters or {}).get("partial_rotary_factor", 1.0)
        turned = int(text.head_dim * part)
        return {"rotary_dim": turned, "use_routing_bias": True, "scoring_func": "sigmoid"}
    return {}


def windows(text: PreTrainedConfig) -> tuple[int | None, ...]:
    """The window of each layer, None for all; nothing where the configuration does not say which layers have one.

    Windows are the business of kvorum's attention, so vLLM's files, some of which drop or widen them, are not asked.
    """
    kinds, window = getattr(text, "layer_types", None), getattr(text, "sliding_window", None)
    if not kinds or not window:
        return ()
    return tuple(int(window) if kind == "sliding_attention" else None for kind in kinds)
