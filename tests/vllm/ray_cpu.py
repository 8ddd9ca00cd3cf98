"""vLLM's executor on Ray for processors, which it refuses: a resource of our own is counted in the place of GPUs.

Actors, placement group, message queues and all else are vLLM's. For tests; `RESOURCE` must be given to ``ray.init``.
"""

from __future__ import annotations

import ray
from vllm.platforms import current_platform
from vllm.v1.executor import ray_executor_v2

RESOURCE = "kvorum_place"


class CpuWorker(ray_executor_v2.RayWorkerProc):  # type: ignore[misc]  # vLLM is not there where types are checked
    """A worker whose device is its rank."""

    def get_node_and_physical_gpu_ids(self) -> tuple[str, list[int]]:
        return ray.get_runtime_context().get_node_id(), [self._init_kwargs["rank"]]


class CpuExecutor(ray_executor_v2.RayExecutorV2):  # type: ignore[misc]
    """An executor that counts `RESOURCE`."""

    def _init_executor(self) -> None:
        type(current_platform).ray_device_key = RESOURCE
        ray_executor_v2.RayWorkerProc = CpuWorker
        super()._init_executor()
