"""The account of a folder's config.json: what in it would change the computation and is passed over by transformers.

transformers takes any field and passes over those that the model's class does not know. A field that the class does
not know is refused if it is known to change what is computed and has not the value at which it has no effect; what is
known to have none is left alone; the rest is named to whoever asks (`kvorum check`).

Not covered: sizes, counts and biases, which the shapes and names of the weights tell (`folder`).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.jsontypes import Json

# Fields that change what is computed and show in no tensor, with the values at which they do not.
CHANGING: Mapping[str, tuple[Json, ...]] = {
    # which tokens are seen
    "sliding_window": (None, 0),
    "sliding_window_size": (None, 0),
    "sliding_window_pattern": (None, 0),
    "window_size": (None, 0),
    "use_sliding_window": (None, False),
    "attention_window": (None, 0),
    "attention_window_size": (None, 0),
    "attention_chunk_size": (None, 0),
    "layer_types": (None,),
    "layers_block_type": (None,),
    "attention_types": (None,),
    "is_causal": (None, True),
    "use_bidirectional_attention": (None, False),
    "prefix_lm": (None, False),
    # rotation
    "rope_scaling": (None,),
    "rope_parameters": (None,),
    "rope_local_base_freq": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
    "rotary_pct": (None, 1, 1.0),
    "rotary_dim": (None,),
    "rope_interleave": (None, False),
    "rope_interleaved": (None, False),
    "rope_traditional": (None, False),
    "use_mrope": (None, False),
    "no_rope_layers": (None,),
    "no_rope_layer_interval": (None, 0),
    "nope_layer_interval": (None, 0),
    "alibi": (None, False),
    "use_alibi": (None, False),
    "position_embedding_type": (None, "rope", "rotary"),
    # scales
    "attention_multiplier": (None,),
    "query_pre_attn_scalar": (None,),
    "attn_scale": (None,),
    "softmax_scale": (None,),
    "scale_attn_by_inverse_layer_idx": (None, False),
    "attn_temperature_tuning": (None, False, 0),
    "embedding_multiplier": (None, 1, 1.0),
    "embedding_scale": (None, 1, 1.0),
    "scale_embedding": (None, False),
    "scale_emb": (None, 1, 1.0),
    "residual_multiplier": (None, 1, 1.0),
    "residual_scale": (None, 1, 1.0),
    "scale_depth": (None,),
    "dim_model_base": (None,),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "output_multiplier_scale": (None, 1, 1.0),
    "lm_head_multiplier": (None, 1, 1.0),
    "mup_enabled": (None, False),
    "use_mup": (None, False),
    # caps
    "attn_logit_softcapping": (None, 0, 0.0),
    "attn_logit_softcap": (None, 0, 0.0),
    "final_logit_softcapping": (None, 0, 0.0),
    "logits_soft_cap": (None, 0, 0.0),
    "clip_qkv": (None, 0, 0.0),
    "swiglu_limit": (None, 0, 0.0),
    # order of parts
    "use_parallel_residual": (None, False),
    "parallel_attn": (None, False),
    "use_post_norm": (None, False),
    "apply_residual_connection_post_layernorm": (None, False),
    "use_qk_norm": (None, False),
    "qk_layernorm": (None, False),
    "attn_output_gate": (None, False),
    # experts
    "norm_topk_prob": (None,),
    "routed_scaling_factor": (None, 1, 1.0),
    "router_scaling_factor": (None, 1, 1.0),
    "scoring_func": (None, "softmax"),
    "topk_method": (None, "greedy"),
    "n_group": (None, 1),
    "topk_group": (None, 1),
}

# Fields that a class need not know, and why.
HARMLESS: Mapping[str, str] = {
    r"_.*|architectures|auto_map|model_type|transformers.*|.*_version|torch_dtype|dtype": "says what wrote it, and how",
    r"unsloth.*|is_llama_config|name|n_ctx|seq_length|max_sequence_length": "a note",
    r".*(dropout|drop|pdrop|layerdrop)|drop_.*|init.*|.*_init|.*_init_.*|.*initializer.*": "is of training",
    r".*_loss.*|.*_coef|aux_.*|seq_aux|router_jitter_noise|gradient_checkpointing|pretraining_tp": "is of training",
    r"output_.*|return_.*|use_cache|use_return_dict|cache_implementation|use_cache_quantization": "is of the call",
    r"use_flash.*|attn_implementation|.*_flash_attention|fused_.*|torchscript|pruned_heads|ep_size": "is how, not what",
    r"id2label|label2id|num_labels|problem_type|classifier_.*|summary_.*|finetuning_task": "is of another head",
    r".*_token_id|.*_token_index|.*_token_ids|tokenizer_class|prefix|vocab_file": "is of the tokenizer or generation",
    r"max_length|min_length|do_sample|temperature|top_k|top_p|num_beams|.*_penalty|forced_.*": "is of generation",
    r"suppress_tokens|.*_ngram_size|bad_words_ids|early_stopping|num_return_sequences|typical_p": "is of generation",
    r"task_specific_params|diversity_.*|exponential_.*|encoder_no_.*|num_beam_groups": "is of generation",
    r"is_decoder|is_encoder_decoder|add_cross_attention|cross_attention_hidden_size": "is looked at by `exactness`",
    r"num_nextn_predict_layers|.*mtp.*": "drafts of further tokens, which are not used",
    r"tie_.*|.*_bias|bias|num_.*|n_.*|.*_size|.*_dim|.*_rank": "the names and shapes of the weights tell",
    r"quantization_config|chunk_size_feed_forward|max_position_embeddings|max_window_layers": "transformers reads it",
}

_ROPE_SHARED = {"rope_type", "type", "rope_theta", "original_max_position_embeddings", "llama_4_scaling_beta"}
_ROPE_SHARED |= {"mrope_section", "mrope_interleaved", "max_position_embeddings"}  # text alone has one position a token
_ROPE: Mapping[str, set[str]] = {
    "default": set(),
    "mrope": set(),
    "linear": {"factor"},
    "dynamic": {"factor", "alpha"},
    "yarn": {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
    "longrope": {"factor", "attention_factor", "short_factor", "long_factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
    "proportional": {"factor"},
}


def account(raw: Mapping[str, Json], config: Any, model_class: type) -> list[str]:
    """The fields of config.json (`raw`) that the model does not use and whose meaning is not known here.

    Raises `UnsupportedModel` for one that would change what is computed, `ModelFileError` for one that must be there.
    """
    inner = raw.get("text_config")
    text = config.get_text_config()
    if isinstance(inner, dict) and text is not config:
        raw, config = inner, text
    else:
        _require(raw, config)
    words = _words(config, model_class)
    known = {*inspect.signature(type(config)).parameters, *type(config).attribute_map, *words}
    unknown = {name: value for name, value in raw.items() if name not in known}
    changing = [f"{name} = {_shown(unknown[name])}" for name in unknown if _changes(name, unknown[name], config)]
    changing += _rope_changes(raw, config, partial="partial_rotary_factor" in words)
    if changing:
        raise UnsupportedModel(
            f"config.json asks for what transformers does not compute for models of type {config.model_type}: "
            f"{', '.join(changing)}."
        )
    return sorted(name for name in unknown if name not in CHANGING and not any(map(_full(name), HARMLESS)))


def _require(raw: Mapping[str, Json], config: Any) -> None:
    """What the shapes of weights cannot tell must stand in the file: a default would be another model."""
    named = type(config).attribute_map
    for name in ("num_attention_heads", "hidden_size", "vocab_size"):
        own = named.get(name, name)
        if own in inspect.signature(type(config)).parameters and not {name, own} & raw.keys():
            raise ModelFileError(f"config.json does not say {own}.")


def _words(config: Any, model_class: type) -> set[str]:
    """Every word of the modules that define the configuration and the model: what is not among them is not used."""
    modules = [sys.modules[kind.__module__] for kind in (type(config), model_class)]
    return set(re.findall(r"\w+", "\n".join(map(inspect.getsource, modules))))


def _changes(name: str, value: Json, config: Any) -> bool:
    if name not in CHANGING or value in CHANGING[name]:
        return False
    if name == "sliding_window" and getattr(config, "use_sliding_window", None) is False:
        return False
    if name in ("layer_types", "layers_block_type", "attention_types") and isinstance(value, list):
        return any(item not in ("full_attention", "attention", "global") for item in value)
    if name == "no_rope_layers" and isinstance(value, list):
        return not all(value)
    if name in ("rope_scaling", "rope_parameters") and isinstance(value, dict):
        return not hasattr(config, "rope_parameters") and value.get("rope_type", value.get("type")) != "default"
    return True


def _rope_changes(raw: Mapping[str, Json], config: Any, *, partial: bool) -> list[str]:
    """What a rotation's parameters ask for that its kind does not have."""
    if config.model_type == "phimoe" or not hasattr(config, "rope_parameters"):
        return []
    found = []
    for field in ("rope_scaling", "rope_parameters"):
        given = raw.get(field)
        if not isinstance(given, dict):
            continue
        sets = [item for item in given.values() if isinstance(item, dict)] or [given]
        for rope in sets:
            kind = str(rope.get("rope_type") or rope.get("type") or "default")
            kind = {"su": "longrope"}.get(kind, kind)
            allowed = _ROPE_SHARED | _ROPE.get(kind, set()) | ({"partial_rotary_factor"} if partial else set())
            found += [
                f"{field}.{key} = {_shown(value)} of the kind {kind}"
                for key, value in rope.items()
                if key not in allowed and value is not None and not (key.endswith("factor") and value == 1)
            ]
    return found


def _full(name: str) -> Any:
    def matches(pattern: str) -> bool:
        return re.fullmatch(pattern, name) is not None

    return matches


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
