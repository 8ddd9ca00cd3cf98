"""A tiny random model with a tokenizer of bytes, as a folder and as a file: what the command's tests run on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import gguf_corpus as corpus
from kvorum import Engine
from kvorum.models.cache_folder import gguf_folder

BUILT = Path(__file__).parent.parent / "build" / "tests"


def tiny_folder(folder: Path, positions: int = 8192) -> Path:
    """Write a two-layer Llama and its tokenizer to ``folder``: same weights at every call."""
    vocab = {symbol: at for at, symbol in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        eos_token_id=0,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@cache
def tiny_file(positions: int = 8192) -> Path:
    """Such a model as a GGUF file, one for all tests: its packed weights start without transformers, which takes a
    process of its own four seconds less than a folder does. What a first start keeps is there already."""
    path = BUILT / str(positions) / "tiny"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            corpus.save(path, corpus.contents("llama", corpus.tiny("llama", max_position_embeddings=positions)))
        Engine.load(path, kv_tokens=64)
    return path


def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own; what was kept of `tiny_file`, and of no other model, is there."""
    kept = gguf_folder(tiny_file()).path
    (home / "models").mkdir(parents=True)
    (home / "models" / kept.name).symlink_to(kept)
    monkeypatch.setenv("KVORUM_HOME", str(home))
    return home
