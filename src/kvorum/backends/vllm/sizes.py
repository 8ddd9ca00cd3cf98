"""How many tokens a cache may hold where nobody has said: what a GPU has left beside the model and its largest tick.

An engine starts with a cache that just holds that tick, and computes it; then every rank says how many tokens fit
beside what is in use by then. The smallest number counts, for a slot is one slot on all ranks. The tick is the largest
that the engine lets through: its layers, its attention and its logits are what later ticks need at most.

Covers the tick and the arithmetic. Knows no vLLM: how much memory there is comes from ``rank_cache``. Not measured on a
GPU; graphs that are captured later must do with what ``share`` leaves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from kvorum.attention.plan import Planner
from kvorum.backends.backend import Work
from kvorum.errors import BadRequest
from kvorum.kv import Block, CacheConfig, PagePool, View

_ROWS = 256
"""Of so many tokens the tick's logits are computed: as many rows as vLLM expects in one of its own steps."""


class Memory(NamedTuple):
    """Bytes of one GPU: what was ``free`` when a worker began, what ``left`` is now, and what it has in ``total``."""

    free: int
    left: int
    total: int

    @classmethod
    def of(cls, device: torch.device, free: int) -> Memory:
        """As the driver says. What torch keeps for ticks that come counts as in use, which is the point of it."""
        return cls(free, *torch.cuda.mem_get_info(device))


def largest_tick(cache: CacheConfig, vocab: int) -> Work:
    """One row that fills ``cache``."""
    block = Block(PagePool(cache))
    view = View(block)
    block.append([0] * cache.tokens)
    plan = Planner().plan([view], [cache.tokens])
    wanted = torch.arange(max(0, cache.tokens - _ROWS), cache.tokens)
    # no two neighbours alike, so that experts are chosen as in a text; nothing is drawn
    ids = [at % vocab for at in range(cache.tokens)]
    return Work(plan, ids, [], wanted, lasts=wanted[:0])


def fitting(memory: Memory, share: float, held: int, each: int) -> int:
    """How many tokens of ``each`` bytes fit.

    Args:
        share: of the whole GPU, what this engine may take for everything together, as vLLM's ``gpu_memory_utilization``
            means it: what others had taken before is not the engine's, and does not count.
        held: bytes of the first cache, which will be given back.
    """
    used = memory.free - memory.left - held
    return max(0, min(int(share * memory.total) - used, memory.left + held) // each)


def smallest(answers: list[int], largest: int, name: str, page_size: int) -> int:
    """The tokens that all ranks have room for, in whole pages.

    Raises:
        BadRequest: some rank has less room than the tick of ``largest`` tokens took.
    """
    rank, tokens = min(enumerate(answers), key=lambda pair: pair[1])
    if tokens < largest:
        raise BadRequest(
            f"Beside {name} and a tick of {largest} tokens rank {rank} has room for {tokens} tokens; share the model "
            "out over more GPUs (tensor_parallel, pipeline_parallel), allow a larger gpu_memory_utilization, or say "
            "kv_tokens."
        )
    return tokens // page_size * page_size
