"""How a model is spread over processes: degrees, executor, and what vLLM is told beside that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.wording import check_known

EXECUTORS = ("mp", "ray", "uni")
MASTER_PORT = 29501
"""Where the first of several nodes hears the others; vLLM's own default."""


class SpreadOptions(TypedDict, total=False):
    """What ``Engine.load`` takes for ``backend="vllm"``.

    ``tensor_parallel``: over how many processes each layer is cut. ``pipeline_parallel``: over how many stages the
    layers are laid out. ``executor``: "mp" has processes of its own, "ray" actors on a Ray cluster, "uni" one model in
    this process, for tests. ``nodes``: how many machines share the processes of "mp"; on the further ones
    `kvorum follow` is started. ``master_addr``, ``master_port``: where this machine hears them, loopback unless given.
    ``patience``: seconds that one call to the workers may take before they are taken for hung. ``untested_vllm``: go on
    with a version of vLLM that was not tested. ``vllm``: further fields of vLLM's ``EngineArgs``, such as
    ``{"quantization": "awq"}``, or ``{"gpu_memory_utilization": 0.5}`` for the share of each GPU's memory that the
    engine may take, weights and cache together.
    """

    tensor_parallel: int
    pipeline_parallel: int
    executor: str
    nodes: int
    master_addr: str
    master_port: int
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
    nodes: int = 1
    master_addr: str = "127.0.0.1"
    master_port: int = MASTER_PORT
    patience: float = 300.0
    untested_vllm: bool = False
    vllm: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def of(cls, **options: Unpack[SpreadOptions]) -> Spread:
        """From what was asked for."""
        return cls(**options)

    def options(self) -> SpreadOptions:
        """What ``of`` makes this of."""
        return SpreadOptions(
            tensor_parallel=self.tensor_parallel,
            pipeline_parallel=self.pipeline_parallel,
            executor=self.executor,
            nodes=self.nodes,
            master_addr=self.master_addr,
            master_port=self.master_port,
            patience=self.patience,
            untested_vllm=self.untested_vllm,
            vllm=self.vllm,
        )

    def __post_init__(self) -> None:
        check_known("executor", self.executor, EXECUTORS)
        for name in ("tensor_parallel", "pipeline_parallel", "nodes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise BadRequest(f"{name}={value!r} must be a whole number of at least 1.")
        if not self.patience > 0:
            raise BadRequest(f"patience={self.patience} must be above 0 seconds.")
        if self.executor == "uni" and self.ranks > 1:
            raise BadRequest(f"executor='uni' is one process, and {self.ranks} are asked for; take executor='mp'.")
        if self.nodes > 1 and self.executor != "mp":
            raise BadRequest(f"nodes={self.nodes} is for executor='mp'; leave it out, Ray finds its machines itself.")
        if self.ranks % self.nodes:
            raise BadRequest(
                f"{self.ranks} processes (tensor_parallel times pipeline_parallel) cannot be shared out evenly over "
                f"nodes={self.nodes}."
            )
        for name in sorted(_OURS & self.vllm.keys()):
            raise BadRequest(f"vllm={name!r} is decided by kvorum; {_OURS_INSTEAD.get(name, 'leave it out')}.")
        share = self.vllm.get("gpu_memory_utilization", 1)
        if isinstance(share, bool) or not isinstance(share, float | int) or not 0 < share <= 1:
            raise BadRequest(f"gpu_memory_utilization={share!r} must be above 0 and at most 1, as in 0.9.")
        for name, what in _REFUSED.items():
            if self.vllm.get(name):
                raise BadRequest(f"{what} ({name}) is not possible on this backend; leave it out.")

    @property
    def ranks(self) -> int:
        """Processes, on all nodes."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def ranks_here(self) -> int:
        """Processes of one node."""
        return self.ranks // self.nodes


_OURS_INSTEAD = {
    "tensor_parallel_size": "give tensor_parallel",
    "pipeline_parallel_size": "give pipeline_parallel",
    "distributed_executor_backend": "give executor",
    "nnodes": "give nodes",
    "node_rank": "start `kvorum follow` on further nodes",
    "master_addr": "give master_addr itself",
    "master_port": "give master_port itself",
    "dtype": "give dtype",
    "max_num_batched_tokens": "give prefill_chunk",
}
_OURS = frozenset(
    {*_OURS_INSTEAD, "model", "tokenizer", "worker_extension_cls", "worker_cls", "attention_backend", "kv_cache_dtype"}
)
_REFUSED = {
    "data_parallel_size": "Data parallelism",
    "decode_context_parallel_size": "Context parallelism",
    "prefill_context_parallel_size": "Context parallelism",
    "speculative_config": "Speculative decoding",
    "enable_lora": "LoRA",
    "kv_transfer_config": "Transfer of vLLM's cache",
    "enable_dbo": "Dual batch overlap",
    "enable_eplb": "Balancing of experts",
}
