"""A model for workers that say their lines by heart: tiny and random, with a tokenizer trained on such lines."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kvorum.api import Engine
from kvorum.lab.faults.scenarios import SCENARIOS

VOCAB = 1200


def scripted_engine() -> Engine:
    """An engine whose model knows nothing. What it would write of its own is noise; nobody should read it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(_lines(), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    config = LlamaConfig(
        vocab_size=inner.get_vocab_size(),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=32768,
        bos_token_id=None,
        eos_token_id=inner.token_to_id("<end>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.eval().requires_grad_(False)
    return Engine(model, tokenizer, kv_tokens=200_000, name="scripted", prefill_chunk=4096)


def _lines() -> list[str]:
    """What is said in all scenarios without a fault, for some seeds."""
    found = []
    for scenario in SCENARIOS.values():
        for seed in range(20):
            made = scenario.make("", seed, scripted=True, encode=list)
            found += [made.item.prompt, *(one.text for one in made.injections)]
    return found
