"""llama.cpp in a bench, on the same GGUF file, through llama-cpp-python's bindings of its C interface.

Slots with a copy of the context each, as independent requests have it, or all over one context in a unified cache
(``llama_memory_seq_cp`` there marks cells as shared and copies nothing). Does not import torch.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from kvorum.bench.engines.side import TOKEN, Tick, seconds
from kvorum.errors import BadRequest

lib = importlib.import_module("llama_cpp")

_Context: TypeAlias = int
"""A pointer to llama.cpp's context."""


_Batch: TypeAlias = ctypes.Structure
"""llama.cpp's ``llama_batch``: one entry of each array a row."""


class Slots:
    """W sequences of one llama.cpp context; ``shared``: they share the cells of the context that they are behind."""

    def __init__(self, gguf: Path, *, shared: bool, threads: int) -> None:
        self._shared, self._threads = shared, threads
        self._ids: list[int] = []
        self._quiet = lib.llama_log_callback(lambda *_: None)  # kept: the library calls it later
        lib.llama_log_set(self._quiet, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(str(gguf).encode(), lib.llama_model_default_params())
        if not self._model:
            raise BadRequest(f"llama.cpp cannot read {gguf}; leave it out with --peers transformers.")

    def read(self, ids: Sequence[int]) -> float:
        """See `Side`."""
        self._ids = list(ids)
        with self._open(1, 0) as (slots, batch):
            return seconds(partial(self._prefill, slots, batch))

    @contextmanager
    def team(self, workers: int, spare: int) -> Iterator[Tick]:
        """See `Side`. Reads the context again: the caches of a single slot and of several have different forms."""
        with self._open(workers, spare) as (slots, batch):
            self._prefill(slots, batch)
            memory = lib.llama_get_memory(slots)
            for worker in range(1, workers):
                lib.llama_memory_seq_cp(memory, 0, worker, -1, -1)
            grown = len(self._ids)

            def tick() -> None:
                nonlocal grown
                self._decode(slots, batch, [(TOKEN, grown, worker) for worker in range(workers)], every=True)
                grown += 1

            yield tick

    @contextmanager
    def _open(self, workers: int, spare: int) -> Iterator[tuple[_Context, _Batch]]:
        context = len(self._ids)
        asked = lib.llama_context_default_params()
        asked.n_seq_max, asked.kv_unified = workers, self._shared
        asked.n_ctx = _up(context + workers * spare) if self._shared else workers * _up(context + spare)
        asked.n_batch = max(512, context)
        asked.n_threads = asked.n_threads_batch = self._threads
        slots = lib.llama_init_from_model(self._model, asked)
        if not slots:
            raise BadRequest(f"llama.cpp makes no context of {asked.n_ctx} tokens; take fewer workers.")
        batch = lib.llama_batch_init(asked.n_batch, 0, 1)
        try:
            yield slots, batch
        finally:
            lib.llama_batch_free(batch)
            lib.llama_free(slots)

    def _prefill(self, slots: _Context, batch: _Batch) -> None:
        self._decode(slots, batch, [(token, at, 0) for at, token in enumerate(self._ids)])

    def _decode(self, slots: _Context, batch: _Batch, rows: list[tuple[int, int, int]], *, every: bool = False) -> None:
        """Run (token, position, slot) rows; logits of all, or of the last."""
        batch.n_tokens = len(rows)
        for at, (token, position, slot) in enumerate(rows):
            batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, position, 1
            batch.seq_id[at][0] = slot
            batch.logits[at] = every or at == len(rows) - 1
        code = lib.llama_decode(slots, batch)
        if code:
            raise BadRequest(f"llama.cpp refused a batch of {len(rows)} (its code: {code}); take fewer workers.")
        lib.llama_synchronize(slots)


def _up(tokens: int) -> int:
    """Rounded up to the 256 that llama.cpp counts in."""
    return -(-tokens // 256) * 256
