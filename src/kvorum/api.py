"""The public engine: the engine's core, and what stands above it (load, decode, run, save)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import torch
from torch import nn

from kvorum.backends.backend import Backend
from kvorum.backends.local.backend import LocalBackend, find_device, packs
from kvorum.engine.decode import DecodingEngine
from kvorum.engine.engine import EngineCore
from kvorum.errors import BadRequest
from kvorum.kv import Block
from kvorum.models.load import load_model
from kvorum.runs.start import Result, arun
from kvorum.store.blocks import load_block, save_block

P = ParamSpec("P")


def _to_its_end(
    function: Callable[Concatenate[EngineCore, P], Coroutine[None, None, Result]],
) -> Callable[Concatenate[EngineCore, P], Result]:
    """``function`` for callers that are no coroutines, with the same arguments, on an event loop of its own."""

    @wraps(function)
    def run(engine: EngineCore, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        with suppress(RuntimeError):  # none is running, as it should be
            asyncio.get_running_loop()
            raise BadRequest("An event loop is running here: use `await kvorum.arun(engine, program, task, ...)`.")
        return asyncio.run(function(engine, *args, **kwargs))

    return run


class Engine(DecodingEngine):
    """One model with one KV cache, and the programs that run on it.

    Not thread-safe: use it from one thread, any number of coroutines.

    Args:
        model: a loaded Hugging Face causal language model, whose dtype and device are kept; or a ``Backend`` that
            holds one, with which the arguments about cache, weights and kernels are its own.
        tokenizer: its tokenizer, needed for anything with text.
        kv_tokens: how many tokens the cache holds; fixed.
        kv_dtype: what keys and values are stored in; "auto" is what the model computes in; on a CPU "float16" too,
            in half the memory of float32.
        page_size: tokens per page.
        prefill_chunk: a lone row longer than this goes through in parts of this size.
        seed: the default seed of sampling.
        name: how traces call the model. weights: how its weights are held ("exact", or the name of a fast format).
        attention: "auto" takes the Triton kernels on a GPU and the native ones on a CPU, where they are installed and
            cover the model; "reference" plain torch; "triton" or "native" those kernels or an error.
        runner: "auto" takes captured graphs on a GPU and the lean decoder for packed weights, where they cover the
            model; "generic" the model's own modules; "lean" or "graphs" those or an error.

    Raises:
        UnsupportedModel: the model cannot be exact over views; the message says why.
        BadRequest, MissingExtra: the attention or runner asked for is not there, or does not cover the model.
    """

    def __init__(
        self,
        model: nn.Module | Backend,
        tokenizer: Any = None,
        *,
        kv_tokens: int = 65536,
        kv_dtype: str | torch.dtype = "auto",
        page_size: int = 16,
        prefill_chunk: int = 512,
        seed: int = 0,
        name: str = "",
        weights: str = "exact",
        attention: str = "auto",
        runner: str = "auto",
    ) -> None:
        if isinstance(model, nn.Module):
            backend: Backend = LocalBackend(
                model,
                kv_tokens=kv_tokens,
                kv_dtype=kv_dtype,
                page_size=page_size,
                weights=weights,
                attention=attention,
                runner=runner,
            )
        else:
            backend = model
        name = name or type(model).__name__
        super().__init__(backend, tokenizer, prefill_chunk=prefill_chunk, seed=seed, name=name)

    @property
    def model(self) -> nn.Module:
        """The loaded model. Raises UnsupportedModel: it is not in this process."""
        return self.backend.module()

    @property
    def weights(self) -> str:
        """How the weights are held: "exact", or the name of a fast format."""
        return str(self.about().get("weights", ""))

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str = "auto",
        dtype: str | torch.dtype = "auto",
        quantize: str | None = "auto",
        kv_tokens: int = 65536,
        kv_dtype: str | torch.dtype = "auto",
        page_size: int = 16,
        prefill_chunk: int = 512,
        seed: int = 0,
        attention: str = "auto",
        runner: str = "auto",
        trust_remote_code: bool = False,
        ignore_unknown: bool = False,
        accept_licence: bool = False,
        progress: Callable[..., None] | None = None,
    ) -> Engine:
        """Load a model by catalogue name, local folder, GGUF file or hub id, fetching it first where needed.

        ``dtype="auto"`` is float32 on a CPU and bfloat16 on a GPU. ``quantize="packed"`` holds the weights in 4 or 7
        bits for the native kernels; "auto" does so where they are installed; ``quantize=None`` with
        ``dtype="float32"`` is the exact mode. Metadata and tensors of a GGUF file that are not known are refused by
        name, or left out with ``ignore_unknown``. ``accept_licence`` accepts that of a model which asks for it.
        ``progress`` is called with what is being fetched or converted. The other arguments are those of ``Engine``.

        Raises:
            UnknownName, ModelFileError, UnsupportedModel, BadRequest: each says what to do.
        """
        place = find_device(device)
        packed = packs(quantize, place, dtype)
        loaded = load_model(
            str(name),
            dtype=dtype,
            device=place,
            packed=packed,
            trust_remote_code=trust_remote_code,
            ignore_unknown=ignore_unknown,
            accept_licence=accept_licence,
            progress=progress,
        )
        return cls(
            loaded.model,
            loaded.tokenizer,
            kv_tokens=kv_tokens,
            kv_dtype=kv_dtype,
            page_size=page_size,
            prefill_chunk=prefill_chunk,
            seed=seed,
            name=loaded.name,
            weights="packed" if packed else "exact",
            attention=attention,
            runner=runner,
        )

    def save(self, block: Block, path: str | Path) -> Path:
        """Write a block to a safetensors file with the model's fingerprint, the token ids and the dtype.

        Raises:
            ForeignBlock: it belongs to another engine. BadRequest: the file's folder is not there; none is made.
            OSError: it cannot be written; what was there is as it was.
        """
        return save_block(block, Path(path), self.backend, self.pool)

    def load_block(self, path: str | Path, *, name: str = "") -> Block:
        """Read a saved block into this engine's cache, sealed.

        Raises:
            BlockMismatch: it is not there, is no block file, or was made by another model or in another dtype; the
                message says which.
            OutOfPages: the cache has no room for it.
        """
        return load_block(Path(path), self.backend, self.pool, name)

    run = _to_its_end(arun)
    """Let a program solve a task; the arguments are those of ``kvorum.arun``. Not from inside a coroutine."""
