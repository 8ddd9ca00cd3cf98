"""A worker of vLLM's whose second rank fails in its fifth tick, before it comes to where the first waits for it.

Workers import this by its name, so it is a file of its own.
"""

from __future__ import annotations

from itertools import count

from kvorum.backends.vllm.extension import Said, ViewWorker
from kvorum.backends.vllm.packing import Answer, Order
from kvorum.backends.vllm.rank_cache import RankCache

FAILS = 5


class FaultyWorker(ViewWorker):
    """A worker as ever, but for that tick."""

    def kvorum_look(self, folder: str, name: str, windows: list[int | None]) -> Said:
        """The first call of all: from here on ticks are counted."""
        if self.parallel_config.rank == 1:
            ticked, number = RankCache.tick, count(1)

            def tick(cache: RankCache, order: Order) -> Answer:
                if next(number) == FAILS:
                    raise RuntimeError("this tick fails")
                return ticked(cache, order)

            RankCache.tick = tick  # type: ignore[method-assign, assignment]
        return super().kvorum_look(folder, name, windows)
