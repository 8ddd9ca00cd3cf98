"""`executor="ray"`: the ranks of a model as actors of a Ray cluster, here one of this machine, on its processors.

Random view programs and a team's tokens against the local backend, an actor that is killed, and what is left behind.
Skipped where vLLM or Ray is not installed. Not covered: GPUs, several machines.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from spread_engines import MARKS, check_team, check_view_programs, family, gone, toy

from kvorum import Engine, Row, View
from kvorum.errors import WorkersLost

pytestmark = [*MARKS, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here: make test-vllm")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray
    from ray_cpu import RESOURCE

    paths = os.pathsep.join(path for path in sys.path if path)
    ray.init(
        address="local",  # not one that others have up
        num_cpus=2,
        resources={RESOURCE: 2},
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def there(cluster: None, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    from ray_cpu import CpuExecutor
    from vllm.v1.executor import ray_executor_v2

    monkeypatch.setattr(ray_executor_v2, "RayExecutorV2", CpuExecutor)
    engine = Engine.load(toy, backend="vllm", tensor_parallel=2, executor="ray", patience=60.0, kv_tokens=4096)
    yield engine
    engine.backend.close()


def actors() -> list[int]:
    """The processes of vLLM's actors, which Ray and vLLM name after what they run."""
    found = []
    for pid in family(os.getpid()):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text()
            if words.startswith(("ray::CpuWorker", "VLLM::")):
                found.append(pid)
    assert len(found) == 2, found
    return found


def test_actors_compute_what_one_process_does(there: Engine, toy: Path) -> None:
    here = Engine.load(toy, quantize=None, dtype="float32", kv_tokens=4096, attention="reference")
    check_view_programs(there, here, 6)
    check_team((there, here), 0.8)


def test_an_actor_that_dies_is_told_of(there: Engine) -> None:
    pids = actors()
    there.forward([Row(View(there.block()), ids=[1, 2])])
    os.kill(pids[0], signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(WorkersLost, match="load it anew"):
        there.forward([Row(View(there.block()), ids=[1, 2])])
    assert time.monotonic() - begun < 60.0  # told of, and not merely missed after the patience
    assert gone(pids, 20.0)
