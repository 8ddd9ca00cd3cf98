"""How a model is spread over processes: degrees, executor, and what vLLM is told beside that."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.wording import check_known

EXECUTORS = ("mp", "ray", "uni")


class SpreadOptions(TypedDict, total=False):
    """What ``Engine.load`` takes for ``backend="vllm"``.

    ``tensor_parallel``: over how many processes each layer is cut. ``pipeline_parallel``: over how many stages the
    layers are laid out. ``executor``: "mp" has processes of its own, "ray" actors on a Ray cluster, "uni" one model in
    this process, for tests. ``patience``: seconds that one call to the workers may take before they are taken for hung.
    ``untested_vllm``: go on with a version of vLLM that was not tested. ``vllm``: further fields of vLLM's
    ``EngineArgs``, such as ``{"quantization": "awq"}``.
    """

    tensor_parallel: int
    pipeline_parallel: int
    executor: str
    patience: float
    untested_vllm: bool
    vllm: Mapping[str, Json]


@dataclass(frozen=True)
class Spread:
    """``SpreadOptions`` with their defaults, checked.

    Raises:
        BadRequest, UnknownName: they do not fit together, or ask for what this backend does not do.
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    executor: str = "mp"
    patience: float = 300.0
    untested_vllm: bool = False
    vllm: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def of(cls, **options: Unpack[SpreadOptions]) -> Spread:
        """From what was asked for."""
        return cls(**options)

    def __post_init__(self) -> None:
        check_known("executor", self.executor, EXECUTORS)
        for name in ("tensor_parallel", "pipeline_parallel"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise BadRequest(f"{name}={value!r} must be a whole number of at least 1.")
        if not self.patience > 0:
            raise BadRequest(f"patience={self.patience} must be above 0 seconds.")
        if self.executor == "uni" and self.ranks > 1:
            raise BadRequest(f"executor='uni' is one process, and {self.ranks} are asked for; take executor='mp'.")
        for name in sorted(_OURS & self.vllm.keys()):
            raise BadRequest(f"vllm={name!r} is decided by kvorum; {_OURS_INSTEAD.get(name, 'leave it out')}.")
        for name, what in _REFUSED.items():
            if self.vllm.get(name):
                raise BadRequest(f"{what} ({name}) is not possible on this backend; leave it out.")

    @property
    def ranks(self) -> int:
        """Processes."""
        return self.tensor_parallel * self.pipeline_parallel


_OURS_INSTEAD = {
    "tensor_parallel_size": "give tensor_parallel",
    "pipeline_parallel_size": "give pipeline_parallel",
    "distributed_executor_backend": "give executor",
    "dtype": "give dtype",
    "max_num_batched_tokens": "give prefill_chunk",
    "gpu_memory_utilization": "give kv_tokens",
}
_OURS = frozenset(
    {*_OURS_INSTEAD, "model", "tokenizer", "worker_extension_cls", "worker_cls", "attention_backend", "kv_cache_dtype"}
)
_REFUSED = {
    "nnodes": "More than one node without Ray",
    "data_parallel_size": "Data parallelism",
    "decode_context_parallel_size": "Context parallelism",
    "prefill_context_parallel_size": "Context parallelism",
    "speculative_config": "Speculative decoding",
    "enable_lora": "LoRA",
    "kv_transfer_config": "Transfer of vLLM's cache",
    "enable_dbo": "Dual batch overlap",
    "enable_eplb": "Balancing of experts",
}


@contextmanager
def environment(spread: Spread) -> Iterator[None]:
    """What vLLM reads from the environment while workers start; as it was, afterwards.

    What somebody has set stays. On a CPU each process gets cores of its own, or its share of them where there are fewer
    cores than processes.
    """
    wanted = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_MLA_DISABLE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if spread.executor == "uni" else "1",
        "VLLM_CPU_OMP_THREADS_BIND": _cores(spread),
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _cores(spread: Spread) -> str:
    if spread.executor == "uni" or not hasattr(os, "sched_getaffinity"):
        return "nobind"
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // spread.ranks)
    shares = [[cores[(rank * each + at) % len(cores)] for at in range(each)] for rank in range(spread.ranks)]
    return "|".join(",".join(map(str, share)) for share in shares)
