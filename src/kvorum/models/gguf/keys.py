"""The account of a GGUF file's metadata: what llama.cpp's loader reads, what has no effect, what is refused.

Facts only, of llama.cpp `VERSION`: the keys that its loader asks for, for every architecture and for those in
`architectures`. A key of a file is used (`model`, `architectures`, `rope` and `tokenizer` take it), is without effect
for a reason given here, has the value at which it has none, or is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping

VERSION = "ggml-org/llama.cpp@0c1e57098"

# Under the architecture's own prefix, for every architecture.
LOADER_KEYS = (
    "context_length",
    "embedding_length",
    "embedding_length_out",
    "attention.causal",
    "pooling_type",
    "classifier.pooling_type",
    "classifier.output_labels",
    "block_count",
    "nextn_predict_layers",
    "expert_count",
    "expert_used_count",
    "expert_group_count",
    "expert_group_used_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.alpha",
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "rope.dimension_count_swa",
    "vocab_size",
    # written beside a scaling of type yarn by the conversion, for every architecture
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_log_multiplier",
)

_RMS = "attention.layer_norm_rms_epsilon"
_LAYER_NORM = "attention.layer_norm_epsilon"
_EXPERTS = ("expert_feed_forward_length", "expert_shared_feed_forward_length")
_WINDOW = ("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa")

# The same, for one architecture.
LOADER_KEYS_OF: Mapping[str, tuple[str, ...]] = {
    "llama": (_RMS,),
    "qwen2": (_RMS,),
    "qwen3": (_RMS,),
    "gemma": (_RMS,),
    "gemma2": (_RMS, *_WINDOW, "attn_logit_softcapping", "final_logit_softcapping"),
    "gemma3": (_RMS, *_WINDOW, "final_logit_softcapping"),
    "phi3": (_RMS, "attention.sliding_window"),
    "granite": (
        _RMS,
        "logit_scale",
        "residual_scale",
        "embedding_scale",
        "attention.scale",
        "deepstack_mapping",
        "expert_shared_feed_forward_length",
    ),
    "smollm3": (_RMS,),
    "olmo2": (_RMS, *_WINDOW),
    "mistral3": (_RMS, "attention.temperature_scale"),
    "arcee": (_RMS,),
    "seed_oss": (_RMS,),
    "glm4": (_RMS, "rope.dimension_sections"),
    "starcoder2": (_LAYER_NORM,),
    "stablelm": (_LAYER_NORM,),
    "nemotron": (_LAYER_NORM,),
    "command-r": (_LAYER_NORM, "logit_scale"),
    "cohere2": (_LAYER_NORM, *_WINDOW, "logit_scale"),
    "qwen2moe": (_RMS, *_EXPERTS),
    "qwen3moe": (_RMS, "expert_feed_forward_length"),
}

# The vocabulary's keys.
LOADER_KEYS_TOKENIZER = (
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.token_type_count",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_sep_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.remove_extra_whitespaces",
    "tokenizer.ggml.precompiled_charsmap",
    "tokenizer.ggml.normalizer.lowercase",
    "tokenizer.ggml.normalizer.strip_accents",
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.suffix_token_id",
    "tokenizer.ggml.middle_token_id",
    "tokenizer.ggml.suppress_tokens",
    "tokenizer.huggingface.json",
    "tokenizer.rwkv.world",
    "tokenizer.chat_template",
)

# Keys that change no logits and no token, with the reason. Those of the architecture stand without its prefix.
NO_EFFECT: Mapping[str, str] = {
    "vocab_size": "the rows of token_embd.weight count",
    "pooling_type": "how hidden states become one embedding of a text, which is not computed here",
    "classifier.pooling_type": "the same, of a classifier",
    "rope.scaling.finetuned": "says how the model was trained; what is computed is in the other keys",
    "classifier.output_labels": "names of a classifier's outputs; its tensors are refused by name",
    "tensor_data_layout": "a name of what the conversion did, always the same for these architectures",
}
NO_EFFECT_TOKENIZER: Mapping[str, str] = {
    "tokenizer.ggml.token_type_count": "for encoders with token types",
    "tokenizer.ggml.seperator_token_id": "no separator is added (see add_sep_token)",
    "tokenizer.ggml.cls_token_id": "for encoders",
    "tokenizer.ggml.mask_token_id": "for encoders",
    "tokenizer.ggml.fim_pre_token_id": "a marker for filling in, written by whoever asks for that",
    "tokenizer.ggml.fim_suf_token_id": "the same",
    "tokenizer.ggml.fim_mid_token_id": "the same",
    "tokenizer.ggml.prefix_token_id": "the same, by an older name",
    "tokenizer.ggml.suffix_token_id": "the same, by an older name",
    "tokenizer.ggml.middle_token_id": "the same, by an older name",
    "tokenizer.ggml.fsep_token_id": "the same, by an older name",
    "tokenizer.huggingface.json": "the same vocabulary once more, in another form",
    "tokenizer.chat_templates": "the names of the templates that follow",
    "tokenizer.ggml.precompiled_charsmap": "read for the same; it normalises text",
    "tokenizer.ggml.normalizer.lowercase": "for encoders, whose vocabularies are refused",
    "tokenizer.ggml.normalizer.strip_accents": "the same",
    "tokenizer.rwkv.world": "a vocabulary of the kind rwkv, which is refused",
    "tokenizer.ggml.remove_extra_whitespaces": "read for vocabularies of the kind t5 alone, which are refused",
}

# The same by the beginning of a key. A key of no architecture, tokenizer or kind of file is nobody's, and has none.
NO_EFFECT_PREFIXES: Mapping[str, str] = {
    "general.": "whose the model is; how to sample from it, which whoever runs it says (`general.type` is checked)",
    "split.": "of which shard: checked where the shards are joined",
}

# Keys with values at which they have no effect (of a list, each); others are refused, unless an architecture takes it.
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "embedding_length_out": (0,),
    "nextn_predict_layers": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_group_count": (0,),
    "expert_group_used_count": (0,),
    "expert_shared_count": (0,),
    "expert_weights_scale": (0.0, 1.0),
    "expert_shared_feed_forward_length": (0,),
    "use_parallel_residual": (False,),
    "deepstack_mapping": (-1,),
    "rope.scaling.alpha": (0.0, 1.0),
    "rope.scaling.yarn_ext_factor": (1.0,),
    "attention.sliding_window": (0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "attention.temperature_scale": (0.0,),
    "rope.dimension_sections": (0,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "attention.output_scale": (0.0, 1.0),
    "attention.value_scale": (0.0, 1.0),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "tokenizer.ggml.add_sep_token": (False,),
    "tokenizer.ggml.suppress_tokens": (),
}

# Prefixes of other kinds of files: a key under one of them says that this file is no language model by itself.
FOREIGN = ("adapter.", "clip.", "xielu.", "diffusion.", "vision.")
