"""Shared fixtures: the real model, loaded once, and one thread for all."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

# Read when triton is imported, which transformers does: without a GPU its kernels run in the interpreter.
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

import engines
from kvorum import Engine
from kvorum.backends.vllm.versions import installed

# The same examples on every run, so that a failure can be had again; each example runs a model, so no deadline.
# KVORUM_EXAMPLES: how many, for processors that are emulated.
settings.register_profile(
    "kvorum",
    deadline=None,
    max_examples=int(os.environ.get("KVORUM_EXAMPLES", "100")),
    derandomize=True,
    database=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking these programs takes minutes: ask for it where it is wanted
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
settings.load_profile("kvorum")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--backend vllm``: `make test-vllm`."""
    words = "vllm: run what is marked `forward` on a worker of vLLM's in this process, and nothing else"
    parser.addoption("--backend", choices=("local", "vllm"), default="local", help=words)


def pytest_configure(config: pytest.Config) -> None:
    """The backend is known before any file is read, for some make their engines then."""
    if config.getoption("--backend") == "vllm":
        if installed() is None:
            raise pytest.UsageError("vLLM is not installed here: make test-vllm")
        engines.elsewhere = engines.VllmWorkers()
        for warning in ("FutureWarning", "DeprecationWarning"):  # vLLM and torch warn of each other's old names
            config.addinivalue_line("filterwarnings", f"ignore::{warning}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another backend what is marked for it, and nothing else."""
    if config.getoption("--backend") == "local":
        return
    chosen = [item for item in items if item.get_closest_marker("forward")]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.fixture(autouse=True, scope="module")
def frozen() -> None:
    """A full cache makes the engine collect garbage, and libraries alone are a million objects to look through: what is
    there when a file's tests begin is not looked at again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Some libraries say what they leak, which frozen objects would be."""
    gc.unfreeze()
    if engines.elsewhere is not None:
        engines.elsewhere.close()


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the test's own in which models are kept."""
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The products here are small, and on a busy machine threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def smollm2() -> Engine:
    """smollm2-135m in exact mode. Blocks are a test's own; the ledger is shared."""
    there: dict[str, Any] = {} if engines.elsewhere is None else {"backend": "vllm", "executor": "uni"}
    return Engine.load("smollm2-135m", quantize=None, dtype="float32", kv_tokens=16384, **there)
