"""Attention kernels and model runners are found by name; a new kernel is one file and one line.

Covers: the order in which "auto" asks, unknown names, and a kernel that is added to a copy of the package and then
computes a tick there. The kernels themselves have tests of their own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import toy_engine
from kvorum import Engine
from kvorum.attention.registry import KERNELS
from kvorum.errors import BadRequest
from kvorum.models.runners.registry import RUNNERS
from package_copy import add_line, copy_package, said

MINE = """
from kvorum.attention.reference import ReferenceAttention


class MineAttention(ReferenceAttention):
    name = "mine"
    preference = 99
"""

TICK = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from kvorum import Engine, Row, View
config = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
engine = Engine(LlamaForCausalLM(config).eval(), kv_tokens=64)
out = engine.forward([Row(View(engine.block()), ids=[1, 2, 3])])
print(engine.backend.attention.name, *out.logits.shape)
"""


def test_the_fastest_is_asked_first() -> None:
    assert list(KERNELS) == ["triton", "native", "reference"]
    assert list(RUNNERS) == ["graphs", "lean", "generic"]


def test_unknown_names_are_told() -> None:
    with pytest.raises(BadRequest, match=r"no attention 'fast'.*auto, triton, native, reference"):
        Engine(toy_engine.model(), attention="fast", kv_tokens=16)
    with pytest.raises(BadRequest, match=r"no runner 'fast'.*auto, graphs, lean, generic"):
        Engine(toy_engine.model(), runner="fast", kv_tokens=16)
    with pytest.raises(BadRequest, match="runner 'lean' does not cover LlamaForCausalLM"):
        Engine(toy_engine.model(), runner="lean", kv_tokens=16)


def test_a_new_kernel_is_a_file_and_a_line(tmp_path: Path) -> None:
    attention = copy_package(tmp_path) / "attention"
    (attention / "mine.py").write_text(MINE)
    add_line(
        attention / "registry.py",
        "from kvorum.attention.native import NativeAttention as NativeAttention",
        "from kvorum.attention.mine import MineAttention as MineAttention",
    )
    assert said(tmp_path, TICK) == ["mine", "1", "40"]
