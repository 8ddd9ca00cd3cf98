"""The engines that a bench compares: each makes a tick, one new token for each of W workers, into a function to time.

`Shared` is kvorum's team over one context. `Slots` is llama.cpp with W sequences, each with a copy of the context,
as independent requests have it. `Generate` is transformers with a batch of W. All pick no token: sampling is left out.
"""

from __future__ import annotations

import ctypes
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from kvorum import Block, Engine, Row, Span, View
from kvorum.errors import BadRequest
from kvorum.models.catalogue import CATALOGUE, lookup
from kvorum.models.store import entry_folder

Tick = Callable[[], object]


class Side(Protocol):
    """One engine with the model loaded."""

    name: str

    def team(self, context: list[int], workers: int) -> Any:
        """A context manager that gives the tick of ``workers`` behind ``context``, and frees it afterwards."""

    def prefill(self, context: list[int]) -> float:
        """Seconds to read ``context`` into an empty cache."""


def tokens(engine: Engine, count: int) -> list[int]:
    """``count`` ids, the same in every run; their values do not change what a tick costs."""
    generator = torch.Generator().manual_seed(0)
    return [int(x) for x in torch.randint(5, engine.shape.vocab // 2, (count,), generator=generator)]


class Shared:
    """kvorum: everyone sees the context, the others and itself."""

    name = "kvorum"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def read(self, context: list[int]) -> Block:
        block = self.engine.block()
        self.engine.forward([Row(View(block), ids=context)])
        return block

    @contextmanager
    def team(self, context: list[int], workers: int) -> Iterator[Tick]:
        shared = self.read(context)
        own = [self.engine.block() for _ in range(workers)]
        views = [View(shared, *(block for block in own if block is not mine), mine) for mine in own]
        yield lambda: self.engine.forward([Row(view, ids=[7]) for view in views])

    @contextmanager
    def spans(self, context: list[int], count: int, workers: int) -> Iterator[Tick]:
        """A tick behind the same tokens in ``count`` closed spans of blocks of their own."""
        whole, length = self.read(context), len(context) // count
        blocks = []
        for at in range(count):
            block = self.engine.block()
            self.engine.compact([Span(whole, at * length, (at + 1) * length)], block)
            blocks.append(block.seal())
        views = [View(*blocks, self.engine.block()) for _ in range(workers)]
        yield lambda: self.engine.forward([Row(view, ids=[7]) for view in views])

    def prefill(self, context: list[int]) -> float:
        started = time.perf_counter()
        self.read(context)
        return time.perf_counter() - started


class Generate:
    """transformers on the float32 weights of ``model``: the forward of its ``generate``, no token chosen."""

    name = "transformers"

    def __init__(self, model: Any) -> None:
        self.model = model

    @contextmanager
    def team(self, context: list[int], workers: int) -> Iterator[Tick]:
        with torch.inference_mode():
            cache = self.model(torch.tensor([context] * workers), use_cache=True, logits_to_keep=1).past_key_values
        last = torch.full((workers, 1), 7)

        @torch.inference_mode()
        def tick() -> object:
            return self.model(last, past_key_values=cache, use_cache=True)

        yield tick

    @torch.inference_mode()
    def prefill(self, context: list[int]) -> float:
        started = time.perf_counter()
        self.model(torch.tensor([context]), use_cache=True, logits_to_keep=1)
        return time.perf_counter() - started


class Slots:
    """llama.cpp on a GGUF file, through llama-cpp-python's own bindings of its C interface."""

    name = "llama.cpp"

    def __init__(self, gguf: Path, spare: int = 64) -> None:
        """``spare``: how many tokens a slot can grow by while it is timed."""
        self._spare = spare
        self._lib = lib = llama_cpp()
        if lib is None:
            raise BadRequest("llama.cpp is not installed here: pip install 'kvorum[bench]'.")
        self._quiet = lib.llama_log_callback(lambda *_: None)  # kept: the library calls it later
        lib.llama_log_set(self._quiet, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(str(gguf).encode(), lib.llama_model_default_params())
        if not self._model:
            raise BadRequest(f"llama.cpp cannot read {gguf}; leave it out with --peers transformers.")

    @contextmanager
    def team(self, context: list[int], workers: int) -> Iterator[Tick]:
        lib = self._lib
        with self._open(len(context), workers) as (slots, batch):
            self._decode(slots, batch, [(token, at, 0) for at, token in enumerate(context)])
            memory = lib.llama_get_memory(slots)
            for worker in range(1, workers):
                lib.llama_memory_seq_cp(memory, 0, worker, -1, -1)  # each slot has a copy of its own
            grown = len(context)

            def tick() -> None:
                nonlocal grown
                self._decode(slots, batch, [(7, grown, worker) for worker in range(workers)], every=True)
                grown += 1

            yield tick

    def prefill(self, context: list[int]) -> float:
        with self._open(len(context), 1) as (slots, batch):
            started = time.perf_counter()
            self._decode(slots, batch, [(token, at, 0) for at, token in enumerate(context)])
            return time.perf_counter() - started

    @contextmanager
    def _open(self, context: int, workers: int) -> Iterator[tuple[Any, Any]]:
        lib, threads = self._lib, torch.get_num_threads()
        asked = lib.llama_context_default_params()
        asked.n_seq_max, asked.kv_unified = workers, False
        asked.n_ctx = workers * -(-(context + self._spare) // 256) * 256
        asked.n_batch = max(512, context)
        asked.n_threads = asked.n_threads_batch = threads
        slots = lib.llama_init_from_model(self._model, asked)
        if not slots:
            raise BadRequest(f"llama.cpp makes no context of {asked.n_ctx} tokens; take fewer workers.")
        batch = lib.llama_batch_init(asked.n_batch, 0, 1)
        try:
            yield slots, batch
        finally:
            lib.llama_batch_free(batch)
            lib.llama_free(slots)

    def _decode(self, slots: Any, batch: Any, rows: list[tuple[int, int, int]], *, every: bool = False) -> None:
        """Run (token, position, slot) rows; logits of all, or of the last."""
        batch.n_tokens = len(rows)
        for at, (token, position, slot) in enumerate(rows):
            batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, position, 1
            batch.seq_id[at][0] = slot
            batch.logits[at] = every or at == len(rows) - 1
        code = self._lib.llama_decode(slots, batch)
        if code:
            raise BadRequest(f"llama.cpp refused a batch of {len(rows)} (its code: {code}); take fewer workers.")
        self._lib.llama_synchronize(slots)


def gguf_of(name: str) -> Path | None:
    """The GGUF file behind a model's name, or None."""
    if name in CATALOGUE:
        return entry_folder(lookup(name)).gguf
    return Path(name) if name.endswith(".gguf") else None


def llama_cpp() -> Any:
    """The module, or None where the extra ``bench`` is not installed."""
    try:
        return importlib.import_module("llama_cpp")
    except ImportError:
        return None
