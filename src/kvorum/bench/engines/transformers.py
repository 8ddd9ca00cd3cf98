"""transformers in a bench: the forward of its ``generate`` on the float32 weights, with a batch of W rows."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import DynamicCache, PreTrainedModel

from kvorum.bench.engines.side import TOKEN, Tick
from kvorum.models.transformers_cache import cache_argument


class Generate:
    """Every row has a copy of the context."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._cache, self._argument = DynamicCache(), cache_argument(model)

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> float:
        """See `Side`."""
        self._cache = DynamicCache()
        started = time.perf_counter()
        self.model(torch.tensor([list(ids)]), **{self._argument: self._cache}, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - started

    @contextmanager
    def team(self, workers: int, spare: int) -> Iterator[Tick]:
        """See `Side`."""
        last = torch.full((workers, 1), TOKEN)
        with torch.inference_mode():
            cache = copy.deepcopy(self._cache)
            cache.batch_repeat_interleave(workers)

        @torch.inference_mode()
        def tick() -> None:
            self.model(last, **{self._argument: cache}, use_cache=True)

        yield tick
