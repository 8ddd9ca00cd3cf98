"""``tools/gpu_on_paper.py``: its tables are those of the page, and its numbers those of the model and the cache.

Does not cover what a GPU does.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kvorum.attention.triton.attention import kernels

TOOL = Path(__file__).parents[1] / "tools" / "gpu_on_paper.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(TOOL.parent)
    return importlib.import_module("gpu_on_paper")


def test_the_table_of_ticks_is_up_to_date(tool: Any) -> None:
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.written(page, ticks=tool.tick_table()) == page, "run tools/gpu_on_paper.py"


def test_the_model_is_that_of_the_benchmark(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters against the shape that transformers builds, without memory for them."""
    monkeypatch.syspath_prepend(TOOL.parents[1] / "benchmarks")
    bench = importlib.import_module("gpu")
    model = bench.build("qwen3-8b", torch.device("meta"))
    whole = {name: one.numel() for name, one in model.named_parameters() if one.ndim > 1}
    assert sum(whole.values()) - whole["model.embed_tokens.weight"] == tool.weights()
    tick = tool.Tick(1, 8, 1024, torch.bfloat16)
    assert tick.cache_bytes == (1024 + 8 * 65) * 36 * 2 * 8 * 128 * 2, "eight workers read what they share once"
    assert tool.Tick(4, 8, 1024, torch.bfloat16).cache_bytes == 4 * tick.cache_bytes
    small = tool.Tick(1, 8, 1024, torch.int8).cache_bytes
    assert small * 16 == tick.cache_bytes * 9, "a byte each, and four for 32 of them"
    assert tick.operations == 8 * (2 * tool.weights() + 36 * 4 * 32 * 128 * (1024 + 8 * 65))


def test_how_many_programs_a_processor_holds(tool: Any) -> None:
    """By registers, by shared memory, by threads, each in turn the bound."""
    assert tool.Compiled(registers=128, stack=0, shared=0, warps=4).resident == 4
    assert tool.Compiled(registers=33, stack=0, shared=56 << 10, warps=4).resident == 3
    assert tool.Compiled(registers=16, stack=0, shared=0, warps=8).resident == 8


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="triton's compiler comes with its Linux wheels")
def test_the_table_of_programs_is_up_to_date(tool: Any) -> None:
    """Compiled by the version of triton that the page names; another one may hand out other registers."""
    assert kernels() is not None
    import triton

    page = tool.PAGE.read_text(encoding="utf-8")
    named = re.search(r"triton ([\d.]+\d), for sm_90", page)
    assert named is not None
    if named[1] != triton.__version__:
        pytest.skip(f"the page has triton {named[1]}'s")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, TOOL, "programs"], check=True, capture_output=True, text=True, env=env)
    assert tool.written(page, programs=done.stdout.strip()) == page, "run tools/gpu_on_paper.py"
