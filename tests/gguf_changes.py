"""What the cases of the corpus of GGUF files change in one before it is written: keys, tensors, shards, its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gguf
import numpy as np
import torch

import gguf_corpus as corpus


def keys(**changed: Any) -> Callable[[corpus.Contents], None]:
    """Change keys of the architecture's own prefix (`a__b` for `a.b`); None takes one away."""

    def change(what: corpus.Contents) -> None:
        for name, value in changed.items():
            key = name.replace("__", ".")
            key = key if key.startswith(("tokenizer.", "general.", "other.")) else f"{what.arch}.{key}"
            if value is None:
                del what.keys[key]
            else:
                what.keys[key] = value

    return change


def drop(*names: str) -> Callable[[corpus.Contents], None]:
    def change(what: corpus.Contents) -> None:
        for name in names:
            del what.tensors[name]

    return change


def rename(pattern: str, to: str) -> Callable[[corpus.Contents], None]:
    def change(what: corpus.Contents) -> None:
        what.tensors = {name.replace(pattern, to): values for name, values in what.tensors.items()}

    return change


def shards(*only: int) -> Callable[[corpus.Contents], None]:
    def change(what: corpus.Contents) -> None:
        what.shards, what.only = 3, only

    return change


def cut(size: int) -> Callable[[corpus.Contents], None]:
    def change(what: corpus.Contents) -> None:
        what.cut = lambda data: data[:-size]

    return change


def integers(what: corpus.Contents) -> None:
    values, _ = what.tensors["blk.0.attn_q.weight"]
    what.tensors["blk.0.attn_q.weight"] = (values.astype(np.int32), gguf.GGMLQuantizationType.I32)


def transposed(what: corpus.Contents) -> None:
    values, kind = what.tensors["blk.1.ffn_up.weight"]
    what.tensors["blk.1.ffn_up.weight"] = (values.T.copy(), kind)


def without_output_biases(what: corpus.Contents) -> None:
    for layer, module in enumerate(what.model.model.layers):
        torch.nn.init.zeros_(module.self_attn.o_proj.bias)
        del what.tensors[f"blk.{layer}.attn_output.bias"]


def wide(name: str) -> Callable[[corpus.Contents], None]:
    """A tensor with a dimension of one before its own."""

    def change(what: corpus.Contents) -> None:
        values, kind = what.tensors[name]
        what.tensors[name] = (values[None], kind)

    return change


def no_number(name: str, value: float) -> Callable[[corpus.Contents], None]:
    """A tensor whose last value is none."""

    def change(what: corpus.Contents) -> None:
        values, kind = what.tensors[name]
        values = values.copy()
        values.reshape(-1)[-1:] = value
        what.tensors[name] = (values, kind)

    return change


def no_scale(what: corpus.Contents) -> None:
    """A block of 4 bits whose scale is infinite."""
    values, kind = what.tensors["blk.1.ffn_down.weight"]
    values = values.copy()
    values[-1, -20:-18] = (0x00, 0x7C)
    what.tensors["blk.1.ffn_down.weight"] = (values, kind)


def not_turned(what: corpus.Contents) -> None:
    """Queries that are zero turn in no way that could be told."""
    values, kind = what.tensors["blk.0.attn_q_norm.weight"]
    what.tensors["blk.0.attn_q_norm.weight"] = (values * 0, kind)


def fewer_tokens(what: corpus.Contents) -> None:
    for key in ("tokens", "token_type", "merges"):
        what.keys[f"tokenizer.ggml.{key}"] = what.keys[f"tokenizer.ggml.{key}"][:-1]


def other_type(what: corpus.Contents) -> None:
    what.keys["tokenizer.ggml.token_type"] = [3, 9, *what.keys["tokenizer.ggml.token_type"][2:]]


def types_left_out(what: corpus.Contents) -> None:
    what.keys["tokenizer.ggml.token_type"] = what.keys["tokenizer.ggml.token_type"][:-1]


def more_tokens(what: corpus.Contents) -> None:
    what.keys["tokenizer.ggml.tokens"] += ["one", "two"]
    what.keys["tokenizer.ggml.token_type"] += [1, 1]


def extra(name: str) -> Callable[[corpus.Contents], None]:
    def change(what: corpus.Contents) -> None:
        what.tensors[name] = what.tensors["output_norm.weight"]

    return change
