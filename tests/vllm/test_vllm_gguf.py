"""A GGUF file on vLLM: the folder that the exact mode makes of it is loaded, with the logits of the local backend.

One process. What a file may be, and how it is checked against itself, is tested without vLLM (``test_gguf_corpus``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from spread_engines import MARKS

from kvorum import Engine, Row, View
from tiny_folder import own_home, tiny_file

pytestmark = MARKS


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    own_home(tmp_path / "home", monkeypatch)
    yield tiny_file()
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def test_a_file_by_its_path(file: Path) -> None:
    there = Engine.load(file, backend="vllm", executor="uni", dtype="float32", kv_tokens=512)
    try:
        here = Engine.load(file, quantize=None, dtype="float32", kv_tokens=512)
        assert there.backend.fingerprint == here.backend.fingerprint
        ours, theirs = (one.forward([Row(View(one.block()), ids=[3, 4, 5, 6])]).logits for one in (there, here))
        assert torch.allclose(ours, theirs, atol=1e-4)
        assert there.tokenizer.decode([3, 4, 5]) == here.tokenizer.decode([3, 4, 5])
    finally:
        there.backend.close()
