"""vLLM on the CPU in a bench, on the float32 weights, in this process: one step of its engine is a tick.

Its prefix cache is on, so the requests of a team share the pages of their context. Tokens are picked greedily, which
vLLM does not do without.
"""

from __future__ import annotations

import importlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import torch

from kvorum.backends.vllm.versions import installed
from kvorum.bench.engines.side import Tick
from kvorum.jsontypes import Json


def import_vllm(threads: int) -> ModuleType:
    """vLLM, told to work in this process, quietly, with so many threads."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    return importlib.import_module("vllm")  # it reads the environment as it is imported


def llm_options(folder: Path, longest: int) -> dict[str, Json]:
    """What its ``LLM`` is given: the float32 weights of the folder, requests of at most ``longest`` tokens."""
    return {
        "model": str(folder),
        "dtype": "float32",
        "max_model_len": longest,
        "enable_prefix_caching": True,
        "max_num_batched_tokens": max(2048, longest),
        "disable_log_stats": True,
    }


class Paged:
    """W requests with one prompt."""

    def __init__(self, folder: Path, *, longest: int, threads: int, eager: bool = False) -> None:
        """``longest``: tokens of the longest request. ``eager``: without vLLM's compiler."""
        vllm = import_vllm(threads)
        self._params = partial(vllm.SamplingParams, temperature=0.0, ignore_eos=True, detokenize=False)
        self._llm = vllm.LLM(**llm_options(folder, longest), enforce_eager=eager)
        self._ids: list[int] = []
        self._names = (f"request-{n}" for n in itertools.count())

    def kernels(self) -> str:
        """The attention that its layers have, threads, and whether its forward is compiled."""
        config = self._llm.llm_engine.vllm_config
        layers = config.compilation_config.static_forward_context.values()
        names = {layer.get_attn_backend().get_name() for layer in layers if hasattr(layer, "get_attn_backend")}
        how = "eager" if config.model_config.enforce_eager else "compiled"
        return f"vllm {installed()} {' '.join(sorted(names))} {torch.get_num_threads()} {how}"

    def read(self, ids: Sequence[int]) -> float:
        """See `Side`."""
        self._ids = list(ids)
        self._llm.reset_prefix_cache()
        started = time.perf_counter()
        self._add(1, 1)
        while self._llm.llm_engine.has_unfinished_requests():
            self._llm.llm_engine.step()
        return time.perf_counter() - started

    @contextmanager
    def team(self, workers: int, spare: int) -> Iterator[Tick]:
        """See `Side`."""
        engine = self._llm.llm_engine
        names = self._add(workers, spare)
        waiting = set(names)
        while waiting:  # all have read the context and stand at their first token
            waiting -= {out.request_id for out in engine.step() if out.outputs and out.outputs[0].token_ids}

        def tick() -> None:
            engine.step()

        yield tick
        engine.abort_request(names)
        while engine.has_unfinished_requests():
            engine.step()

    def _add(self, workers: int, most: int) -> list[str]:
        names = list(itertools.islice(self._names, workers))
        for name in names:
            params = self._params(max_tokens=most)
            self._llm.llm_engine.add_request(name, {"prompt_token_ids": self._ids}, params)
        return names
