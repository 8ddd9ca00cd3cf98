"""A cache as large as there is room for: two claims of a whole engine, with memory that is made up.

What a GPU says of its memory is put in for the CPU; all else is what runs on one. One process.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from spread_engines import MARKS, in_this_process, toy

from kvorum import Engine, Row, View
from kvorum.errors import BadRequest

pytestmark = MARKS


def test_the_cache_takes_what_is_left(monkeypatch: pytest.MonkeyPatch, toy: Path) -> None:
    from kvorum.backends.vllm import backend, load, sizes

    monkeypatch.setattr(backend, "MAX_TOKENS", 512)  # of the largest tick; without kernels it would take a minute
    left = 1 << 24
    monkeypatch.setattr(load, "_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(sizes.Memory, "of", classmethod(lambda cls, device, free: sizes.Memory(1 << 25, left, 1 << 25)))

    how = {"attention": "reference", "kv_tokens": None}
    with in_this_process(toy, **how, vllm={"gpu_memory_utilization": 0.75}) as engine:
        each = engine.backend.cache.bytes_per_token
        first = 512 * each
        wanted = min((3 << 23) - ((1 << 24) - first), left + first) // each // 16 * 16
        assert engine.backend.cache.tokens == engine.about()["kv_tokens"] == wanted > 512
        local = Engine.load(toy, quantize=None, dtype="float32", kv_tokens=1024, attention="reference")
        ours, theirs = (one.forward([Row(View(one.block()), ids=list(range(3, 40)))]).logits for one in (engine, local))
        assert torch.allclose(ours, theirs, atol=1e-4)
        last = torch.tensor([wanted - 1])  # the ranks' cache is as large as the engine believes
        engine.backend.write(last, engine.backend.read(last))
    with (
        pytest.raises(BadRequest, match=r"Beside .* rank 0 has room for 0 tokens"),
        in_this_process(toy, **how, vllm={"gpu_memory_utilization": 0.4}),
    ):
        pass
    with in_this_process(toy, attention="reference", kv_tokens=160) as told:
        assert told.backend.cache.tokens == 160
