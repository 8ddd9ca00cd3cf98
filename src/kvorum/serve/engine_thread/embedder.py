"""Embeddings of texts, on the engine's loop: the mean of the last hidden states of a text's tokens.

A text is read by itself, with nothing before it, and its block goes when it has been read. Texts of all requests take
turns, a batch in a tick: with a token's hidden state come its logits, and so no more of these are held than of an
echoed prompt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kvorum.api import Engine
from kvorum.engine.row import Cost, Row
from kvorum.kv import View
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.generator import SCORED
from kvorum.serve.keys.caller import Caller
from kvorum.serve.metrics import Metrics


class Embedder:
    """Embeds texts for any number of requests at a time. ``rows``: of a tick, that all requests may have."""

    def __init__(self, engine: Engine, admission: Admission, metrics: Metrics, rows: int) -> None:
        self._engine, self._admission, self._metrics = engine, admission, metrics
        self._rows, self._piece = max(1, rows // 4), min(SCORED, engine.prefill_chunk)
        self._turn = asyncio.Lock()

    async def embed(self, texts: Sequence[Sequence[int]], caller: Caller) -> Tensor:
        """Of each text, as the ids of one token or more, the mean over its tokens of the hidden states after the final
        norm, of length 1: float32 ``[texts, hidden]``.

        Raises:
            ApiError: no place.
        """
        began = time.monotonic()
        batches = list(self._batches(texts))
        pages = max(sum(self._engine.pool.pages_for(len(texts[at])) for at in batch) for batch in batches)
        ticket = await self._admission.enter(caller.turn, max(map(len, batches)), lambda: pages)
        try:
            self._metrics.queued.observe(time.monotonic() - began)
            means = []
            for batch in batches:
                async with self._turn:
                    means += await self._means([texts[at] for at in batch])
                caller.spend(sum(len(texts[at]) for at in batch))
            return torch.nn.functional.normalize(torch.stack(means), dim=1)
        finally:
            self._admission.leave(ticket)

    def _batches(self, texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """The numbers of the texts that share a tick, in order; a longer text has several ticks for itself."""
        batch: list[int] = []
        tokens = 0
        for at, ids in enumerate(texts):
            if batch and (tokens + len(ids) > self._piece or len(batch) == self._rows):
                yield batch
                batch, tokens = [], 0
            batch.append(at)
            tokens += len(ids)
        yield batch

    async def _means(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Of each text the mean state ``[hidden]``, float32; the texts share a tick, or there is one."""
        views = [View(self._engine.block("text")) for _ in texts]
        sums = torch.zeros(len(texts), self._engine.shape.hidden, dtype=torch.float64)
        for start in range(0, max(map(len, texts)), self._piece):
            rows = [
                Row(view, ids=list(ids[start : start + self._piece])) for view, ids in zip(views, texts, strict=True)
            ]
            reply = await self._engine.scheduler.submit(rows, [Cost(0)] * len(rows), hidden=True, every=True)
            assert reply.output.every_hidden is not None
            for at, states in enumerate(reply.output.every_hidden):
                sums[at] += states.detach().cpu().double().sum(0)
        lengths = torch.tensor([len(ids) for ids in texts], dtype=torch.float64)
        return list((sums / lengths[:, None]).float())
