"""The model of the files in ``older_formats/``: its weights are fractions, the same on every machine."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from toy_engine import tokenizer

KEPT = Path(__file__).with_name("older_formats")


def model() -> LlamaForCausalLM:
    """Two layers in float32, with the vocabulary of ``toy.tokenizer``."""
    config = LlamaConfig(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=len(tokenizer()) - 1,
        pad_token_id=None,
    )
    made: LlamaForCausalLM = LlamaForCausalLM(config)
    made.eval().requires_grad_(False)
    with torch.no_grad():
        for at, parameter in enumerate(made.parameters()):
            turns = (torch.arange(parameter.numel()) * 40503 + at * 7919) % 65536
            spread = turns.float().view(parameter.shape) / 65536 - 0.5
            parameter.copy_(spread if parameter.ndim > 1 else 1 + spread)
    return made
