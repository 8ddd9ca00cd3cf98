"""The public engine: everything of the engine below, and what stands above it (load, decode, run, save)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from kvorum.backends.local.device import find_device, packs
from kvorum.engine.budget import Budget
from kvorum.engine.decode import Token, decode
from kvorum.engine.engine import EngineCore
from kvorum.engine.row import check_pool
from kvorum.errors import BadRequest
from kvorum.kv import Block, View
from kvorum.runs.injection import Injection
from kvorum.runs.parameters import Value
from kvorum.runs.program import Program, Result, Task
from kvorum.runs.prompts import Prompts
from kvorum.runs.run import Run
from kvorum.runs.start import arun
from kvorum.sampling.sampling import Sampling
from kvorum.store.events import Event


class Engine(EngineCore):
    """One model with one KV cache, and the programs that run on it."""

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str = "auto",
        dtype: str | torch.dtype = "auto",
        quantize: str | None = "auto",
        kv_tokens: int = 65536,
        seed: int = 0,
        trust_remote_code: bool = False,
        progress: Callable[..., None] | None = None,
        **options: Any,
    ) -> Engine:
        """Load a model by catalogue name, local folder, GGUF file or hub id, fetching it first where needed.

        ``dtype="auto"`` is float32 on a CPU and bfloat16 on a GPU. ``quantize="packed"`` holds the weights in 4 or 7
        bits for the native kernels; "auto" does so where they are installed; ``quantize=None`` with
        ``dtype="float32"`` is the exact mode.

        Raises:
            UnknownName, ModelFileError, UnsupportedModel, BadRequest: each says what to do.
        """
        from kvorum.models.load import load_model

        place = find_device(device)
        packed = packs(quantize, place, dtype)
        if packed:
            options.setdefault("weights", "packed")
        loaded = load_model(
            str(name),
            dtype=dtype,
            device=place,
            packed=packed,
            trust_remote_code=trust_remote_code,
            progress=progress,
        )
        return cls(loaded.model, loaded.tokenizer, kv_tokens=kv_tokens, seed=seed, name=loaded.name, **options)

    def save(self, block: Block, path: str | Path) -> Path:
        """Write a block to a safetensors file with the model's fingerprint, the token ids and the dtype."""
        from kvorum.models.fingerprint import fingerprint
        from kvorum.store.blocks import save_block

        check_pool(block, self.pool)
        return save_block(block, Path(path), fingerprint(self.model))

    def load_block(self, path: str | Path, *, name: str = "") -> Block:
        """Read a saved block into this engine's cache, sealed.

        Raises:
            BlockMismatch: it was made by another model, in another dtype, or is no block file; the message says which.
            OutOfPages: the cache has no room for it.
        """
        from kvorum.models.fingerprint import fingerprint
        from kvorum.store.blocks import load_block

        return load_block(Path(path), self.pool, fingerprint(self.model), name)

    # -- coroutines and runs -----------------------------------------------------------------------------------

    def decode(self, view: View, *, sampling: Sampling | None = None, **options: Any) -> AsyncIterator[Token]:
        """Write on at the view's open end, token by token; see ``kvorum.engine.decode.decode`` for the options."""

        return decode(self, view, sampling=sampling or Sampling(), **options)

    def run(
        self,
        program: Program,
        task: Task | str,
        *,
        workers: int | Sequence[str] | None = None,
        budget: Budget | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
        trace: str | Path | None = None,
        listener: Callable[[Event], None] | None = None,
        replay: Sequence[Event] | None = None,
        control: Callable[[Run], None] | None = None,
        reseed: Sequence[tuple[int, int]] = (),
        tap: int = 0,
        inject: Sequence[Injection] = (),
        prompts: Prompts | None = None,
        **params: Value,
    ) -> Result:
        """Let a program solve a task; the arguments are those of ``kvorum.arun``. Not from inside a coroutine."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise BadRequest("An event loop is running here: use `await kvorum.arun(engine, program, task, ...)`.")
        running = arun(
            self,
            program,
            task,
            workers=workers,
            budget=budget,
            sampling=sampling,
            seed=seed,
            trace=trace,
            listener=listener,
            replay=replay,
            control=control,
            reseed=reseed,
            tap=tap,
            inject=inject,
            prompts=prompts,
            **params,
        )
        return asyncio.run(running)
