"""How many tokens a GPU's cache may hold: the arithmetic on made-up memory, and the tick that it is measured behind.

Not covered: what a GPU really says (not measured on one), and how ranks are asked (`tests/vllm/test_vllm_room.py`).
"""

from __future__ import annotations

import pytest
import torch

import families
from kvorum import Engine
from kvorum.backends.vllm.sizes import Memory, fitting, largest_tick, smallest
from kvorum.backends.vllm.spread import Spread
from kvorum.errors import BadRequest

GB = 1 << 30


def test_the_share_is_of_the_whole_gpu_for_all_that_the_engine_takes() -> None:
    # 80 GB, all free at first; weights, tick and a first cache of 2 GB took 30: 0.9 of 80 less 28 are left for a cache
    assert fitting(Memory(80 * GB, 50 * GB, 80 * GB), 0.9, 2 * GB, 1) == 44 * GB
    assert fitting(Memory(80 * GB, 50 * GB, 80 * GB), 0.9, 2 * GB, 1 << 20) == 44 << 10


def test_what_others_hold_is_not_the_engines() -> None:
    # half was taken before: 0.4 of the whole are the engine's, as on an empty GPU
    others, alone = Memory(40 * GB, 30 * GB, 80 * GB), Memory(80 * GB, 70 * GB, 80 * GB)
    assert fitting(others, 0.4, GB, 1) == fitting(alone, 0.4, GB, 1) == int(0.4 * 80 * GB) - 9 * GB
    # and a share that is not there any more is not given
    assert fitting(others, 1.0, GB, 1) == 31 * GB


def test_nothing_left_is_nothing() -> None:
    assert fitting(Memory(80 * GB, 2 * GB, 80 * GB), 0.9, GB, 1) == 0


def test_the_rank_with_least_room_decides_in_whole_pages() -> None:
    assert smallest([1000, 807, 900], 512, "tiny", 16) == 800
    with pytest.raises(BadRequest, match=r"Beside tiny and a tick of 1024 tokens rank 1 has room for 807 tokens;"):
        smallest([1200, 807], 1024, "tiny", 16)


def test_the_tick_fills_the_cache_and_can_be_computed() -> None:
    engine = Engine(families.build("llama"), kv_tokens=300, page_size=4, attention="reference")
    work = largest_tick(engine.backend.cache, engine.shape.vocab)
    assert work.plan.tokens == len(work.ids) == 300
    done = engine.backend.forward(work)
    assert done.logits().shape == (256, engine.shape.vocab)
    assert list(done.picks) == []
    assert all(bool(keys.isfinite().all()) for keys, _ in engine.backend.read(torch.arange(300)))


@pytest.mark.parametrize("share", [0, 1.5, True, "much", -0.1])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(BadRequest, match="must be above 0 and at most 1"):
        Spread.of(vllm={"gpu_memory_utilization": share})  # type: ignore[dict-item]
    assert Spread.of(vllm={"gpu_memory_utilization": 0.5}).vllm == {"gpu_memory_utilization": 0.5}
