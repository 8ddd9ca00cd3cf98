"""Shared fixtures: the real model, loaded once, and as many threads as a test's model deserves."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from kvorum import Engine

# The same examples on every run, so that a failure can be had again; each example runs a model, so no deadline.
settings.register_profile(
    "kvorum",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking these programs takes minutes: ask for it where it is wanted
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
settings.load_profile("kvorum")


CORES = os.cpu_count() or 1


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tiny models are fastest on one thread; the real one takes all cores, unless others need them.

    On a busy machine every product would wait for its slowest thread, which is ten times slower than one thread.
    """
    idle = os.getloadavg()[0] < 1.5 * CORES
    before = torch.get_num_threads()
    torch.set_num_threads(CORES if idle and "smollm2" in request.fixturenames else 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def smollm2() -> Engine:
    """smollm2-135m in exact mode. Blocks are a test's own; the ledger is shared."""
    return Engine.load("smollm2-135m", quantize=None, dtype="float32", kv_tokens=16384)
