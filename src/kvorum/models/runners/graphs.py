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
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kvorum.attention.kernel import AttentionKernel, StaticPlan
from kvorum.attention.plan import Plan
from kvorum.attention.tap import Tap
from kvorum.errors import BadRequest
from kvorum.models.forward import Forward
from kvorum.models.runners.buckets import MOST_ROWS, Buckets
from kvorum.models.runners.runner import GenericRunner, ModelRunner, RunnerSetup

Replay = Callable[[], Forward]
"""A forward on static buffers; every run returns its results in the same tensors, or in new ones."""

AFTER = 2
"""Ticks of a bucket that run eagerly before it is captured: a capture takes as long as several."""
KEEP = 24
"""Buckets that stay captured; the least recently used goes first."""


@dataclass(frozen=True)
class Bucket:
    """What ticks must agree in to share buffers and a graph: the plans' key, and whether hidden states are wanted."""

    key: Hashable
    hidden: bool


@dataclass(frozen=True, eq=False, slots=True)
class _Captured:
    """A bucket's buffers and its replay. ``ids``: int64 ``[tokens]``."""

    ids: Tensor
    plan: StaticPlan
    replay: Replay


class GraphRunner(ModelRunner):
    """Ticks of one token per row on buffers that stay; all others through the generic runner.

    ``capture`` makes a forward on static buffers into its replay.
    """

    name = "graphs"
    preference = 20

    def __init__(self, model: nn.Module, attention: AttentionKernel, capture: Callable[[Replay], Replay]) -> None:
        if not attention.has_static_plans:
            raise BadRequest(f"The attention {attention.name} has no static buffers; take runner='auto'.")
        self._attention, self._capture, self._model = attention, capture, model
        self._eager = GenericRunner(model, attention)
        self._known: Buckets[Bucket, _Captured] = Buckets(AFTER, KEEP)
        self._weights: tuple[int, ...] = ()
        self.refused: str | None = None
        """Why the model cannot be captured, once that was tried. Every tick is eager from then on."""

    @classmethod
    def of(cls, setup: RunnerSetup) -> GraphRunner | None:
        """On a GPU, with an attention that has static buffers."""
        if setup.attention.setup.cache.device.type != "cuda" or not setup.attention.has_static_plans:
            return None
        return cls(setup.model, setup.attention, capture_cuda())

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Those captured, the least recently used first."""
        return self._known.keys

    def forward(
        self, plan: Plan, inputs: Tensor, wanted: Tensor, *, hidden: bool = False, tap: Tap | None = None
    ) -> Forward:
        """As ``ModelRunner.forward``; the results are new tensors, not the buffers."""
        captured = None if inputs.is_floating_point() or tap is not None else self._captured(plan, inputs, hidden)
        if captured is None:
            return self._eager.forward(plan, inputs, wanted, hidden=hidden, tap=tap)
        out, rows = captured.replay(), plan.tokens
        return Forward(out.logits[:rows].clone(), None if out.hidden is None else out.hidden[:rows].clone())

    def clear(self) -> None:
        """Forget every capture: for whoever changes what the model's forward does."""
        self._known.clear()

    def _captured(self, plan: Plan, ids: Tensor, hidden: bool) -> _Captured | None:
        """The static buffers for this tick, holding it, captured first where it is time to; None: run it eagerly."""
        if self.refused is not None or plan.tokens > MOST_ROWS or plan.tokens != len(plan.counts):
            return None
        if (key := self._attention.static_key(plan)) is None:
            return None
        self._check_weights()
        bucket = Bucket(key, hidden)
        captured = self._known.use(bucket)
        if captured is not None:
            captured.plan.fill(plan)
            captured.ids[: len(ids)].copy_(ids)
            return captured
        if not self._known.due(bucket):
            return None
        try:
            captured = self._capture_bucket(bucket, plan, ids)
        except RuntimeError as error:  # a model whose forward waits for the GPU, say to pick experts
            self.refused = str(error).partition("\n")[0] or type(error).__name__
            warnings.warn(f"The model's decoding cannot be captured and runs eagerly: {self.refused}", stacklevel=2)
            self.clear()
            return None
        self._known.keep(bucket, captured)
        return captured

    def _check_weights(self) -> None:
        """A capture reads the weights where they were; values may change in place, places may not."""
        places = tuple(parameter.data_ptr() for parameter in self._model.parameters())
        if places != self._weights:
            self.clear()
            self._weights = places

    def _capture_bucket(self, bucket: Bucket, plan: Plan, ids: Tensor) -> _Captured:
        static = self._attention.bind_static(plan)
        static_ids = ids.new_zeros(static.tokens)
        static_ids[: len(ids)].copy_(ids)
        index = torch.arange(static.tokens, device=ids.device)

        def run() -> Forward:
            static.forget()
            from kvorum.models import seam

            return seam.call(self._model, static_ids, attention=static, logits_index=index, hidden=bucket.hidden)

        return _Captured(static_ids, static, self._capture(run))


def capture_cuda() -> Callable[[Replay], Replay]:
    """Captures runs as CUDA graphs that share one pool of memory: they are replayed one at a time."""
    pool: Any = torch.cuda.graph_pool_handle()

    def capture(run: Replay) -> Replay:
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
