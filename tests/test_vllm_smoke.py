"""One forward through a worker of vLLM's in this process, wherever vLLM is installed: does the backend still fit it?

Two views of one text on a tiny folder, every logit against the local backend. Skipped, and said, where there is no
vLLM: `make test-vllm` has an environment with it and tests the rest, several processes above all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kvorum import Engine, Row, View
from kvorum.backends.vllm.versions import installed
from tiny_folder import tiny_folder

pytestmark = [
    pytest.mark.skipif(installed() is None, reason="vLLM is not installed here: make test-vllm"),
    # vLLM and torch warn of each other's old names
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """vLLM's groups of processes end with the test, also those that are of this process alone."""
    yield tiny_folder(tmp_path / "tiny")
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def logits(engine: Engine) -> torch.Tensor:
    """Of two rows that see each other behind a text, the last token of each."""
    text, one, two = (engine.block(name) for name in ("text", "one", "two"))
    engine.forward([Row(View(text), ids=[5, 6, 7, 8])])
    return engine.forward([Row(View(text, two, one), ids=[1, 2]), Row(View(text, one, two), ids=[3])]).logits


def test_one_forward(folder: Path) -> None:
    there = Engine.load(folder, backend="vllm", executor="uni", dtype="float32", kv_tokens=512)
    try:
        here = Engine.load(folder, quantize=None, dtype="float32", kv_tokens=512)
        assert torch.allclose(logits(there), logits(here), atol=1e-4)
        assert there.backend.fingerprint == here.backend.fingerprint
    finally:
        there.backend.close()
