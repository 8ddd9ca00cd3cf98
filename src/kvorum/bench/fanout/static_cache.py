"""transformers in a comparison of whole jobs: one prompt after another behind a static cache of their beginning."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StaticCache

from kvorum.bench.fanout.peer import Prompts, Replies, Wanted, goes_on
from kvorum.errors import BenchError
from kvorum.models.transformers_cache import cache_argument


class StaticPrompt:
    """A `Peer`: ``generate`` with a copy of the beginning's keys and values for each prompt."""

    name = "transformers, one by one"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, room: int) -> None:
        """``room``: tokens of the cache, beginning and what follows."""
        self._model, self._tokenizer, self._room = model, tokenizer, room
        self._kept: StaticCache | None = None
        self._ids: list[int] = []

    @torch.inference_mode()
    def keep(self, beginning: Sequence[int]) -> float:
        """See `Peer`."""
        started = time.perf_counter()
        known = len(self._ids)
        if self._kept is None or not goes_on(beginning, self._ids):
            self._kept, known = StaticCache(config=self._model.config, max_cache_len=self._room), 0
        ids = torch.tensor([list(beginning[known:])])
        self._model(ids, **{cache_argument(self._model): self._kept}, logits_to_keep=1)
        self._ids = list(beginning)
        return time.perf_counter() - started

    @torch.inference_mode()
    def write(self, prompts: Prompts, wanted: Wanted) -> Replies:
        """See `Peer`."""
        if wanted.schema is not None:
            raise BenchError("transformers has no grammars")
        least = wanted.tokens if wanted.full else 1
        texts = []
        started = time.perf_counter()
        for ending in prompts.endings:
            ids = torch.tensor([[*prompts.beginning, *ending]])
            found = self._model.generate(  # type: ignore[operator]  # of a mixin that its type does not tell
                ids,
                attention_mask=torch.ones_like(ids),
                **{cache_argument(self._model): copy.deepcopy(self._kept)},
                max_new_tokens=wanted.tokens,
                min_new_tokens=least,
                do_sample=False,
                stop_strings=list(wanted.stops) or None,
                tokenizer=self._tokenizer,
            )
            assert self._tokenizer is not None
            texts.append(str(self._tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)))
        return Replies(time.perf_counter() - started, texts)

    def close(self) -> None:
        """See `Peer`."""
        self._kept, self._ids = None, []
