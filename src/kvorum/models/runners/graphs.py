"""Steady decoding on static buffers, so that a tick can be replayed as a CUDA graph instead of launched piece by piece.

A tick whose rows have one token each *fits* a bucket: the tables of its plan, padded to powers of two. The buffers of a
bucket stay where they are; a tick fills them and runs, or replays, the same forward on them. Padding does nothing: a
padded row stores no key, is seen by nobody, and its logits are dropped. Growth inside a bucket changes numbers only;
a tick that fits no bucket known so far runs eagerly until its bucket has come up often enough to be worth a capture.

Covers buckets, filling, reuse and invalidation. What turns a function on static buffers into a replay is given from
outside: ``capture_cuda`` on a GPU, in tests a function that runs it again. Not measured on a GPU.
"""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kvorum.attention.plan import Plan
from kvorum.attention.triton.attention import Pass, TritonAttention, TritonTick
from kvorum.attention.triton.tables import Sizes, Tables
from kvorum.models.seam import Forward

Run = Callable[[], Forward]
"""A forward on static buffers; every run returns its results in the same tensors, or in new ones."""

MOST_ROWS = 256
"""Ticks of more rows are bound by arithmetic, not by launches."""
AFTER = 2
"""Ticks of a bucket that run eagerly before it is captured: a capture takes as long as several."""
KEEP = 24
"""Buckets that stay captured; the least recently used goes first."""


class Bucket(NamedTuple):
    """What ticks must agree in to share buffers and a graph."""

    room: Sizes
    width: int
    turned: bool
    hidden: bool


@dataclass(frozen=True, eq=False, slots=True)
class _Static:
    """A bucket's buffers and its replay. ``ids``: int64 ``[tokens]``."""

    ids: Tensor
    part: Pass
    replay: Run


class StaticDecoder:
    """Ticks of one token per row, on buffers that stay.

    Args:
        forward: the model's forward, with the arguments of ``seam.call``.
        attention: whose ticks it is given. model: whose parameters a capture depends on.
        capture: makes a run on static buffers into its replay.
    """

    def __init__(
        self,
        forward: Callable[..., Forward],
        attention: TritonAttention,
        model: nn.Module,
        capture: Callable[[Run], Run],
    ) -> None:
        self._forward, self._attention, self._model, self._capture = forward, attention, model, capture
        self._known: OrderedDict[Bucket, _Static] = OrderedDict()
        self._seen: Counter[Bucket] = Counter()
        self._weights: tuple[int, ...] = ()
        self.refused: str | None = None
        """Why the model cannot be captured, once that was tried. Every tick is eager from then on."""

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Those captured, the least recently used first."""
        return tuple(self._known)

    def forward(self, plan: Plan, ids: Tensor, hidden: bool) -> Forward | None:
        """The tick of ``plan`` with ``ids [tokens]`` on static buffers; None: it must run eagerly.

        Logits ``[tokens, vocab]`` and, if asked for, hidden states ``[tokens, hidden]``, new tensors of every token.
        """
        rows = plan.tokens
        if self.refused is not None or rows > MOST_ROWS or rows != len(plan.counts):
            return None
        passes = self._attention.tables(plan)
        if len(passes) != 1:
            return None
        self._check_weights()
        static = self._filled(passes[0], ids, hidden)
        if static is None:
            return None
        out = static.replay()
        return Forward(out.logits[:rows].clone(), None if out.hidden is None else out.hidden[:rows].clone())

    def clear(self) -> None:
        """Forget every capture: for whoever changes what the model's forward does."""
        self._known.clear()
        self._seen.clear()

    def _check_weights(self) -> None:
        """A capture reads the weights where they were; values may change in place, places may not."""
        places = tuple(parameter.data_ptr() for parameter in self._model.parameters())
        if places != self._weights:
            self.clear()
            self._weights = places

    def _filled(self, tables: Tables, ids: Tensor, hidden: bool) -> _Static | None:
        """The static buffers for this tick, holding it; captured first where it is time to."""
        bucket = Bucket(tables.sizes.rounded(), tables.width, tables.turned, hidden)
        static = self._known.get(bucket)
        if static is not None:
            self._known.move_to_end(bucket)
            static.part.fill(tables)
            static.ids[: len(ids)].copy_(ids)
            return static
        self._seen[bucket] += 1
        if self._seen[bucket] <= AFTER:
            return None
        try:
            static = self._capture_bucket(bucket, tables, ids)
        except RuntimeError as error:  # a model whose forward waits for the GPU, say to pick experts
            self.refused = str(error).partition("\n")[0] or type(error).__name__
            warnings.warn(f"The model's decoding cannot be captured and runs eagerly: {self.refused}", stacklevel=2)
            self.clear()
            return None
        self._known[bucket] = static
        while len(self._known) > KEEP:
            forgotten, _ = self._known.popitem(last=False)
            del self._seen[forgotten]
        return static

    def _capture_bucket(self, bucket: Bucket, tables: Tables, ids: Tensor) -> _Static:
        count = bucket.room.tokens
        static_ids = ids.new_zeros(count)
        static_ids[: len(ids)].copy_(ids)
        part = Pass(tables, bucket.room, ids.device)
        tick = TritonTick(self._attention, count, [part])
        index = torch.arange(count, device=ids.device)

        def run() -> Forward:
            tick.forget()
            return self._forward(input_ids=static_ids, tick=tick, logits_index=index, hidden=bucket.hidden)

        return _Static(static_ids, part, self._capture(run))


def capture_cuda() -> Callable[[Run], Run]:
    """Captures runs as CUDA graphs that share one pool of memory: they are replayed one at a time."""
    pool: Any = torch.cuda.graph_pool_handle()

    def capture(run: Run) -> Run:
        stream: Any = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()  # compiles kernels and makes workspaces, which a capture may not
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            out = run()

        def replay() -> Forward:
            graph.replay()
            return out

        return replay

    return capture
