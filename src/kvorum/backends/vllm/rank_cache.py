"""A rank's cache, and what is done with it: ticks, copies, reading and writing. Its heads and its layers only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvorum.attention.kernel import AttentionSetup
from kvorum.attention.registry import choose
from kvorum.attention.triton.attention import TritonAttention
from kvorum.attention.triton.tables import Cuts
from kvorum.backends.backend import Work
from kvorum.backends.vllm import rank_graphs
from kvorum.backends.vllm.packing import Answer, Order
from kvorum.backends.vllm.rank_graphs import StageGraphs
from kvorum.backends.vllm.rank_model import FromFirst, RankModel
from kvorum.backends.vllm.sizes import Memory, fitting
from kvorum.kv import CacheConfig, KVCache
from kvorum.kv.cache import CachePart
from kvorum.kv.derived_blocks import imitate
from kvorum.models.shape import LayerShape
from kvorum.sampling.sampler import draw_all


class RankCache:
    """Keys and values of ``part`` in ``config``, which has this rank's layers alone.

    Raises:
        BadRequest, MissingExtra: the memory, or the attention asked for, is not there.
    """

    def __init__(
        self, model: RankModel, shapes: Sequence[LayerShape], part: CachePart, config: CacheConfig, attention: str
    ) -> None:
        self._model, self._part = model, part
        self.cache = KVCache(config, model.device)
        self._rotaries = [shape.rotary for shape in shapes]
        q_heads = [shape.q_heads for shape in shapes]
        self.attention = choose(attention, AttentionSetup(self.cache, self._rotaries, q_heads, model.dtype))
        self._graphs: StageGraphs | None = None
        self._logits: dict[int, Tensor] = {}

    @property
    def cuts(self) -> Cuts | None:
        """By which rules the attention makes tables that may stand in buffers that stay; None: it has none such."""
        return self.attention.cuts if isinstance(self.attention, TritonAttention) else None

    def stay(self, cuts: Cuts) -> None:
        """Cut tables as all ranks do from now on, and be ready for ticks in buffers that stay."""
        assert isinstance(self.attention, TritonAttention)
        self.attention.cuts = cuts
        self._graphs = StageGraphs(self._model, self.attention, rank_graphs.capturing(self._model.device))

    def tick(self, order: Order) -> Answer:
        """Together: one tick. The logits stay here until they are forgotten."""
        work, model = order.work, self._model
        for number in order.forget:
            self._logits.pop(number, None)
        tap = None if work.tap is None else work.tap.to(model.device)
        ids = torch.tensor(work.ids, dtype=torch.long, device=model.device)
        refused = ""
        if self._graphs is not None:
            self._graphs.drop(order.drop)
        if self._graphs is not None and order.static is not None:
            hidden = self._graphs.forward(order.static, work.plan, ids)
            refused = self._graphs.refused
        else:
            attends = FromFirst(self.attention.bind(work.plan, tap), self._part.first)
            hidden = model.forward(attends, ids, embeds=self._embeds(ids, work))
        shares = None if tap is None else tap.shares
        moved = self._graphs is not None and self._graphs.moved()
        if hidden is None:
            return Answer(shares=shares, refused=refused, moved=moved)
        wanted = hidden[work.wanted.to(model.device)]
        logits = model.logits(wanted)
        if not model.answers:
            return Answer(shares=shares, refused=refused, moved=moved)
        self._logits[order.number] = logits
        picks = draw_all(logits if work.lasts is None else logits[work.lasts.to(model.device)], list(work.draws()))
        return Answer(picks, wanted if work.hidden else None, shares, refused, moved)

    def _embeds(self, ids: Tensor, work: Work) -> Tensor | None:
        if not work.embeds or not self._model.pp.is_first_rank:
            return None
        embeds = self._model.embed(ids)
        for start, rows in work.embeds:
            embeds[start : start + len(rows)] = rows.to(embeds)
        return embeds

    def logits(self, number: int) -> Tensor | None:
        """Logits ``[wanted, vocab]`` of that tick; None on the ranks that have none."""
        return self._logits[number] if self._model.answers else None

    def room(self) -> int:
        """How many tokens this rank could hold in place of this cache, after what it has computed so far."""
        model, config = self._model, self.cache.config
        memory = Memory.of(model.device, model.free_before)
        share = model.config.cache_config.gpu_memory_utilization
        return fitting(memory, share, config.slots * config.bytes_per_token, config.bytes_per_token)

    def carry(self, source: Tensor, shift: Tensor, target: Tensor) -> None:
        """Copy slots, keys turned by ``shift``."""
        self.cache.carry(source, shift, target, self._rotaries)

    def read(self, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of this rank's layers."""
        at = slots.to(self._model.device)
        return [(k[:, at], v[:, at]) for k, v in zip(self.cache.keys, self.cache.values, strict=True)]

    def write(self, slots: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Store what belongs here of the whole model's keys and values."""
        device = self._model.device
        for layer, (keys, values) in enumerate(layers):
            own = self._part.take(layer, keys), self._part.take(layer, values)
            if own[0] is not None and own[1] is not None:
                here = layer - self._part.first
                self.cache.put(here, slots.to(device), own[0].to(device), own[1].to(device))

    def imitate(self, kind: str, seed: int, source: Tensor, target: Tensor) -> None:
        """Fill ``target`` with an imitation of ``source``: the numbers do not depend on how many ranks there are."""
        imitate(self.cache, self._rotaries, kind, seed, source, target, self._part)
