"""Where the tests' own models are computed: on the local backend, or on workers of vLLM's in this process, as
``pytest --backend vllm`` says.

A worker is kept for the next engine of its size, once the pages of the last one are nobody's: it holds nothing of an
engine but slots that it has written.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from kvorum import Engine
from kvorum.backends.backend import Backend
from kvorum.kv import PagePool

_OF_BACKENDS = ("kv_tokens", "kv_dtype", "page_size", "attention")
"""Options of an engine that its backend is made with."""


def engine_of(name: str, model: Callable[[], PreTrainedModel], tokenizer: Any, /, **options: Any) -> Engine:
    """An engine of a model in float32; ``name``: of these weights, which ``model`` makes."""
    if elsewhere is not None:
        return elsewhere.engine(name, model, tokenizer, options)
    return Engine(model(), tokenizer, **options)


def model_of(engine: Engine) -> PreTrainedModel:
    """The model of such an engine, in this process."""
    if elsewhere is not None:
        return elsewhere.model(engine)
    assert isinstance(engine.model, PreTrainedModel)
    return engine.model


class VllmWorkers:
    """Workers of vLLM's in this process."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kvorum-tests-"))
        self._kept: list[tuple[Any, Backend, weakref.ref[PagePool]]] = []
        self._models: dict[int, Callable[[], PreTrainedModel]] = {}

    def engine(
        self, name: str, model: Callable[[], PreTrainedModel], tokenizer: Any, options: dict[str, Any]
    ) -> Engine:
        """As ``engine_of``."""
        size = {option: value for option, value in options.items() if option in _OF_BACKENDS}
        more = {option: value for option, value in options.items() if option not in _OF_BACKENDS}
        backend = self._idle((name, size)) or self._started(name, model, size)
        engine = Engine(backend, tokenizer, **{"name": "LlamaForCausalLM", **more})
        self._kept.append(((name, size), backend, weakref.ref(engine.pool)))
        self._models[id(backend)] = model
        return engine

    def model(self, engine: Engine) -> PreTrainedModel:
        """As ``model_of``; made anew."""
        return self._models[id(engine.backend)]()

    def _idle(self, key: Any) -> Backend | None:
        """A worker of that size that nobody uses any more, off the list."""
        for collect in (False, True):  # an engine in a circle is gone with Python's collector alone
            if collect:
                gc.collect()
            for at, (found, backend, pool) in enumerate(self._kept):
                if found == key and pool() is None:
                    del self._kept[at]
                    return backend
        return None

    def _started(self, name: str, model: Callable[[], PreTrainedModel], size: dict[str, Any]) -> Backend:
        folder = self._folder / name
        if not folder.exists():
            model().save_pretrained(folder)
        return Engine.load(folder, backend="vllm", executor="uni", dtype="float32", **size).backend

    def close(self) -> None:
        """End all, and vLLM's groups of processes, which are of this one alone."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        for _, backend, _ in self._kept:
            backend.close()
        cleanup_dist_env_and_memory()
        shutil.rmtree(self._folder, ignore_errors=True)


elsewhere: VllmWorkers | None = None
"""None: on the local backend."""
