"""A rank's buffers that stay, one set for each bucket, and its stage's layers over them: captured as a CUDA graph.

What comes from the stage before is copied into the buffers, what goes to the next one is taken from them: sending and
receiving are outside of the graph, sums over the ranks of a stage inside. Which bucket, and when it is captured, the
driver says (``static_ticks``). Padded rows compute something that nobody reads. Not measured on a GPU; on a CPU the
same runs without a capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from vllm.distributed.parallel_state import GraphCaptureContext, get_pp_group, get_tp_group
from vllm.sequence import IntermediateTensors
from vllm.v1.worker.workspace import current_workspace_manager, is_workspace_manager_initialized

from kvorum.attention.kernel import AttentionKernel, StaticPlan
from kvorum.attention.plan import Plan
from kvorum.backends.vllm.rank_model import FromFirst, RankModel, States
from kvorum.backends.vllm.static_ticks import Static
from kvorum.wording import first_line

Run = Callable[[], States]
"""A stage's layers on static buffers; every run returns its results in the same tensors, or in new ones."""


@dataclass(eq=False, slots=True)
class _Bucket:
    """``ids`` int64 ``[tokens]``; ``before``: what the stage before handed on, on stages after the first."""

    ids: Tensor
    plan: StaticPlan
    before: IntermediateTensors | None
    run: Run


class StageGraphs:
    """A rank's buckets by the driver's numbers. ``refused``: why the last capture failed; empty where it did not."""

    def __init__(self, model: RankModel, attention: AttentionKernel, capture: Callable[[Run], Run]) -> None:
        self._model, self._attention, self._capture = model, attention, capture
        self._known: dict[int, _Bucket] = {}
        self._scratch = scratch()
        self.refused = ""

    def drop(self, numbers: Iterable[int]) -> None:
        """Let go of buckets."""
        for number in numbers:
            self._known.pop(number, None)

    def moved(self) -> bool:
        """After a tick: whether vLLM's scratch memory, whose place graphs remember, had to grow and lies elsewhere."""
        before, self._scratch = self._scratch, scratch()
        return bool(self._known) and self._scratch != before

    def forward(self, static: Static, plan: Plan, ids: Tensor) -> Tensor | None:
        """Together: as ``RankModel.forward``, in a bucket; captured behind it, if this is its first tick."""
        model, rows = self._model, len(ids)
        self.refused = ""
        before = model.receive()
        if static.capture:
            bucket = self._known[static.number] = self._new(plan, before)
        else:
            bucket = self._known[static.number]
            bucket.plan.fill(plan)
        bucket.ids[:rows].copy_(ids)
        if before is not None and bucket.before is not None:
            for name, states in before.tensors.items():
                room = bucket.before.tensors[name]
                room[:rows].copy_(states)
                room[rows:].zero_()  # layers add to them in place, and sums that grow for ever reach infinity
        found = model.hand_on(_first(bucket.run(), rows))
        if static.capture:
            try:
                bucket.run = self._capture(bucket.run)
            except RuntimeError as error:  # a model whose forward waits for the GPU, or no memory
                self.refused = first_line(error) or type(error).__name__
        return found

    def _new(self, plan: Plan, before: IntermediateTensors | None) -> _Bucket:
        model = self._model
        static = self._attention.bind_static(plan)
        attends = FromFirst(static, min(model.layers))
        ids = torch.zeros(static.tokens, dtype=torch.long, device=model.device)
        states = None
        if before is not None:
            rooms = {name: x.new_zeros(static.tokens, *x.shape[1:]) for name, x in before.tensors.items()}
            states = IntermediateTensors(rooms)

        def run() -> States:
            static.forget()
            return model.compute(attends, ids, before=states)

        return _Bucket(ids, static, states, run)


def scratch() -> int:
    """Where the memory lies that vLLM's experts share for what they compute in between; 0 where there is none."""
    if not is_workspace_manager_initialized():
        return 0
    (some,) = current_workspace_manager().get_simultaneous(((1,), torch.uint8))
    return int(some.data_ptr())


def _first(states: States, rows: int) -> States:
    """The states of the rows that are no padding."""
    if isinstance(states, IntermediateTensors):
        return IntermediateTensors({name: x[:rows] for name, x in states.tensors.items()})
    return states[:rows]


def capturing(device: torch.device) -> Callable[[Run], Run]:
    """How a rank captures: on a GPU as CUDA graphs that share one pool of memory, for they are replayed one at a time;
    on a CPU not at all.

    vLLM's own context is around a capture: its sums over ranks exchange the places of their buffers when it ends, and
    do so on every rank, whether the capture succeeded there or not.
    """
    if device.type != "cuda":
        return lambda run: run
    stream = torch.cuda.Stream(device=device)
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Run) -> Run:
        graph = torch.cuda.CUDAGraph()
        context = GraphCaptureContext(stream)
        with (
            get_tp_group().graph_capture(context),
            get_pp_group().graph_capture(context),
            torch.cuda.graph(graph, pool=pool, stream=stream),
        ):
            out = run()

        def replay() -> States:
            graph.replay()
            return out

        return replay

    return capture
