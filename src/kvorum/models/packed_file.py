"""A model's packed weights in one safetensors file, so that a later start converts nothing.

Version 1 had no packed embeddings of their own, only those tied to an output layer; it is read on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kvorum.errors import ModelFileError
from kvorum.models.packed import Packed, Part
from kvorum.models.packed_layers import PackedEmbedding, PackedLinear, put_module
from kvorum.models.tensor_file import write_tensors
from kvorum.versions import PACKED


def save_packed(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write every packed matrix and every other parameter and buffer of `model` to one safetensors file.

    Raises `OSError`: the disk is full, say; what was there is as it was.
    """
    tensors: dict[str, Tensor] = {}
    bits: dict[str, list[int]] = {}
    ties: dict[str, str] = {}
    embeddings: dict[str, int] = {}
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            bits[name] = [part.bits for part in module.packed.parts]
            for i, part in enumerate(module.packed.parts):
                owner[id(part)] = name
                tensors[f"{name}.{i}.data"], tensors[f"{name}.{i}.mult"] = part.data, part.mult
                if part.bias is not None:
                    tensors[f"{name}.{i}.bias"] = part.bias
    for name, module in model.named_modules():
        if isinstance(module, PackedEmbedding):
            if id(module.part) in owner:
                ties[name] = owner[id(module.part)]
                continue
            embeddings[name] = module.part.bits
            tensors[f"{name}.0.data"], tensors[f"{name}.0.mult"] = module.part.data, module.part.mult
    for name, tensor in _others(model):
        tensors[name] = tensor.detach().contiguous()
    about = {
        "format": PACKED.key,
        "bits": json.dumps(bits),
        "ties": json.dumps(ties),
        "embeddings": json.dumps(embeddings),
    }
    write_tensors(Path(path), tensors, about)


def load_packed(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill `model` (same configuration, on the meta device or not) from a file of `save_packed`, in place.

    Raises `ModelFileError` for a file that is damaged, of another version or of another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            PACKED.version(about.get("format"), path)
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        linears: dict[str, PackedLinear] = {}
        for name, widths in json.loads(about["bits"]).items():
            parts = [_part(tensors, f"{name}.{i}", bits) for i, bits in enumerate(widths)]
            linears[name] = PackedLinear(Packed(parts))
            put_module(model, name, linears[name])
        for name, width in json.loads(about.get("embeddings", "{}")).items():
            put_module(model, name, PackedEmbedding(_part(tensors, f"{name}.0", width)))
        for name, source in json.loads(about["ties"]).items():
            put_module(model, name, PackedEmbedding(linears[source].packed.parts[0]))
        for name, old in list(_others(model)):
            tensor = tensors[name]
            if tensor.shape != old.shape:
                raise ModelFileError(f"{path} was made from another model: {name} has another shape.")
            parent, _, leaf = name.rpartition(".")
            home = model.get_submodule(parent)
            if leaf in home._parameters:
                home._parameters[leaf] = nn.Parameter(_aligned(tensor), requires_grad=False)
            else:
                home._buffers[leaf] = _aligned(tensor)
    except (SafetensorError, OSError, AttributeError, KeyError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path} cannot be read as packed weights of this model: {error}.") from error


def _part(tensors: Mapping[str, Tensor], name: str, bits: int) -> Part:
    bias = tensors.get(f"{name}.bias")
    data, mult = _aligned(tensors[f"{name}.data"]), _aligned(tensors[f"{name}.mult"])
    return Part(data, mult, bits, None if bias is None else _aligned(bias))


def _aligned(tensor: Tensor) -> Tensor:
    """A tensor that starts a cache line: a weight register that straddles two costs two loads."""
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


def _others(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that are not packed, among them the buffers that a state dict leaves out."""
    yield from model.named_parameters()
    yield from model.named_buffers()
