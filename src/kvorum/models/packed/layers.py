"""The layers of a Hugging Face model in packed weights: they stand where `nn.Linear` and `nn.Embedding` stood.

All of a model's are kept in one safetensors file, so that a later start converts nothing. Version 1 of that file had no
packed embeddings of their own, only those tied to an output layer, version 2 none with a scale; both are read on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kvorum.errors import ModelFileError
from kvorum.models.packed.matrix import GROUP, PackedMatrix, PackedPart
from kvorum.models.packed.products import product, quantize_rows
from kvorum.models.tensor_file import write_tensors
from kvorum.versions import PACKED


class PackedLinear(nn.Module):
    """`nn.Linear` with packed weights: x float32 [..., in_features] to float32 [..., out_features]."""

    def __init__(self, packed: PackedMatrix) -> None:
        super().__init__()
        self.packed = packed
        self.in_features = packed.features
        self.out_features = packed.rows

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.in_features).float()
        y = product(quantize_rows(flat), self.packed)
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def extra_repr(self) -> str:
        bits = "+".join(str(part.bits) for part in self.packed.parts)
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={bits}"


class PackedEmbedding(nn.Module):
    """`nn.Embedding` over packed rows, times `scale` (Gemma's): ids [...] to float32 [..., features]."""

    def __init__(self, part: PackedPart, scale: float = 1.0) -> None:
        super().__init__()
        self.part = part
        self.scale = scale
        self.num_embeddings = part.rows
        self.embedding_dim = part.data.shape[1] * GROUP

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.part.dequantize(ids.reshape(-1))
        if self.scale != 1.0:
            rows *= self.scale
        return rows.view(*ids.shape, self.embedding_dim)


def put(model: nn.Module, name: str, what: nn.Module | Tensor) -> None:
    """Let ``what`` take the place of the module, parameter or buffer ``name`` of ``model``."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, what)


def save_packed(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write every packed matrix and every other parameter and buffer of `model` to one safetensors file.

    Raises `OSError`: the disk is full, say; what was there is as it was.
    """
    tensors = {name: tensor.detach().contiguous() for name, tensor in _unpacked(model)}
    bits: dict[str, list[int]] = {}
    ties: dict[str, str] = {}
    embeddings: dict[str, int] = {}
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            bits[name] = [part.bits for part in module.packed.parts]
            for i, part in enumerate(module.packed.parts):
                owner[id(part)] = name
                tensors |= _tensors(f"{name}.{i}", part)
    for name, module in model.named_modules():
        if isinstance(module, PackedEmbedding) and id(module.part) in owner:
            ties[name] = owner[id(module.part)]
        elif isinstance(module, PackedEmbedding):
            embeddings[name] = module.part.bits
            tensors |= _tensors(f"{name}.0", module.part)
    scales = {name: module.scale for name, module in model.named_modules() if isinstance(module, PackedEmbedding)}
    scales = {name: scale for name, scale in scales.items() if scale != 1.0}
    tables = {"bits": bits, "ties": ties, "embeddings": embeddings, "scales": scales}
    about = {name: json.dumps(table) for name, table in tables.items()}
    # what has no scales is of version 2, which a kvorum of before reads as well
    about["format"] = PACKED.key if scales else f"{PACKED.mark}2"
    write_tensors(Path(path), tensors, about, aligned=True)


@dataclass(frozen=True, eq=False)
class PackedFile:
    """A file of `save_packed`, read: packed linear layers and embeddings by their names, and all other tensors."""

    path: str | os.PathLike[str]
    modules: dict[str, PackedLinear | PackedEmbedding]
    tensors: dict[str, Tensor]


def read_packed(path: str | os.PathLike[str]) -> PackedFile:
    """Map a file of `save_packed`. Raises `ModelFileError` for a file that is damaged or of another version."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            PACKED.version(about.get("format"), path)
            tensors = {key: _aligned(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118

        def part(name: str, bits: int) -> PackedPart:
            data, mult = tensors.pop(f"{name}.data"), tensors.pop(f"{name}.mult")
            return PackedPart(data, mult, bits, tensors.pop(f"{name}.bias", None))

        linears: dict[str, PackedLinear] = {}
        for name, widths in json.loads(about["bits"]).items():
            linears[name] = PackedLinear(PackedMatrix([part(f"{name}.{i}", bits) for i, bits in enumerate(widths)]))
        modules: dict[str, PackedLinear | PackedEmbedding] = {**linears}
        scales: dict[str, float] = json.loads(about.get("scales", "{}"))
        for name, width in json.loads(about.get("embeddings", "{}")).items():
            modules[name] = PackedEmbedding(part(f"{name}.0", width), scales.get(name, 1.0))
        for name, source in json.loads(about["ties"]).items():
            modules[name] = PackedEmbedding(linears[source].packed.parts[0], scales.get(name, 1.0))
        return PackedFile(path, modules, tensors)
    except ModelFileError:
        raise
    except (SafetensorError, OSError, AttributeError, KeyError) as error:
        raise ModelFileError(f"{path} cannot be read as packed weights: {error}.") from error


def load_packed(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill `model` (same configuration, on the meta device or not) from a file of `save_packed`, in place.

    Raises `ModelFileError` for a file that is damaged, of another version or of another model.
    """
    fill_packed(model, read_packed(path))


def fill_packed(model: nn.Module, file: PackedFile) -> None:
    """`load_packed` of a file that was read already."""
    path = file.path
    try:
        for name, module in file.modules.items():
            put(model, name, module)
        for name, old in list(_unpacked(model)):
            new = file.tensors[name]
            if new.shape != old.shape:
                raise ModelFileError(f"{path} was made from another model: {name} has another shape.")
            put(model, name, nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new)
    except (AttributeError, KeyError) as error:
        raise ModelFileError(f"{path} cannot be read as packed weights of this model: {error}.") from error


def _tensors(name: str, part: PackedPart) -> dict[str, Tensor]:
    found = {f"{name}.data": part.data, f"{name}.mult": part.mult}
    return found if part.bias is None else found | {f"{name}.bias": part.bias}


def _aligned(tensor: Tensor) -> Tensor:
    """A tensor that starts a cache line: a weight register that straddles two costs two loads."""
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


def _unpacked(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that are not packed, among them the buffers that a state dict leaves out."""
    return chain(model.named_parameters(), model.named_buffers())
