"""The tensors of a GGUF file as packed matrices, under the names of a transformers model.

Blocks of 4 bits (Q4_0, Q4_1, Q4_K) are taken as they are; what is of another type is brought to 7 bits. Names and the
unpacking of other types are the `gguf` package's, reading the file is `gguf_file`'s.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.models.gguf_file import GGUFFile, GGUFTensor
from kvorum.models.packed.matrix import PackedPart, chunk_rows, pack, pack_weight, stack

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")


def takes_over(file: GGUFFile) -> bool:
    """Whether `quantize_model` can make a model of the file alone, without converting it first."""
    return file.architecture in _ARCHITECTURES and "rope_freqs.weight" not in file.tensors


class GGUFWeights:
    """The tensors of the file at `path`, for a model of `config`.

    Raises `ModelFileError` for a file that is not whole, `UnsupportedModel` for an architecture that is not covered.
    """

    def __init__(self, path: str | os.PathLike[str], config: PretrainedConfig) -> None:
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

        file = GGUFFile(path)
        arch = file.architecture
        if arch not in _ARCHITECTURES:
            raise UnsupportedModel(f"The weights of a GGUF file of architecture {arch} are not taken over packed.")
        self._tensors = file.tensors
        self.untied = "output.weight" in self._tensors
        self._names = get_tensor_name_map({v: k for k, v in MODEL_ARCH_NAMES.items()}[arch], config.num_hidden_layers)
        # llama.cpp reorders the rows of q and k so that the two halves of a rotated pair lie side by side.
        self._interleaved = arch in ("llama", "mistral")
        self._heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}

    def values(self, name: str, own: Tensor) -> Tensor:
        """A small parameter (a norm, a bias) in float32: the file's, or the model's `own` where the file has none."""
        tensor = self._find(name, own)
        return own if tensor is None else tensor.dequantize()

    def part(self, name: str, weight: Tensor, bias: Tensor | None = None) -> PackedPart | None:
        """The packed matrix of the linear layer or embedding `name`; None where the file has none.

        `weight` and `bias` are the model's own: the shape of one, and what the other is where the file has no bias.
        """
        tensor = self._find(f"{name}.weight", weight)
        if tensor is None:
            return None
        heads = self._heads.get(name.rpartition(".")[2]) if self._interleaved else None
        order = None
        if heads is not None:
            order = torch.arange(len(weight)).view(heads, -1, 2).transpose(1, 2).reshape(-1)
        return packed_part(tensor, None if bias is None else self.values(f"{name}.bias", bias), order)

    def _find(self, name: str, own: Tensor) -> GGUFTensor | None:
        """The file's tensor for the parameter `name`; None: it has none, and the model's `own` has values.

        Raises `ModelFileError`: neither has, or their shapes differ.
        """
        found = self._names.get_name(name, (".weight", ".bias"))
        if found == "output.weight" and not self.untied:
            found = "token_embd.weight"
        tensor = self._tensors.get(found or "")
        if tensor is None and own.is_meta:
            raise ModelFileError(f"The GGUF file has no weights for {name}; fetch the file again.")
        if tensor is not None and tensor.shape != own.shape:
            raise ModelFileError(f"{tensor.name} in the GGUF file has another shape than {name} in the model.")
        return tensor


def packed_part(tensor: GGUFTensor, bias: Tensor | None = None, order: Tensor | None = None) -> PackedPart:
    """A tensor of two dimensions packed, its rows taken in `order` (LongTensor [rows]) if given."""
    unpack = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k}.get(tensor.type)
    raw = tensor.data if order is None else tensor.data[order.numpy()]
    pieces = []
    step = chunk_rows(tensor.shape[1])
    for start in range(0, len(raw), step):
        rows = raw[start : start + step]
        if unpack is None:
            pieces.append(pack_weight(tensor.dequantize(rows), 7))
        else:
            pieces.append(pack(*unpack(torch.from_numpy(np.array(rows))), 4))
    return stack(pieces, bias)


def _nibbles(packed: Tensor) -> Tensor:
    """Low halves of the bytes [..., n], then the high ones: [..., 2n]."""
    return torch.cat((packed & 15, packed >> 4), -1)


def _q4_0(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    blocks = raw.view(len(raw), -1, 18)
    scale = blocks[..., :2].contiguous().view(torch.float16).float()[..., 0]
    return _nibbles(blocks[..., 2:]).flatten(1), scale, -8 * scale


def _q4_1(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    blocks = raw.view(len(raw), -1, 20)
    scale, low = blocks[..., :4].contiguous().view(torch.float16).float().unbind(-1)
    return _nibbles(blocks[..., 4:]).flatten(1), scale, low


def _q4_k(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    blocks = raw.view(len(raw), -1, 144)  # 256 inputs: d, dmin, 12 bytes of eight 6-bit scales and mins, 128 of codes
    d, dmin = blocks[..., :4].contiguous().view(torch.float16).float().chunk(2, -1)
    a, b, c = torch.split(blocks[..., 4:16], 4, -1)
    scale = torch.cat((a & 63, (c & 15) | ((a >> 6) << 4)), -1)
    low = torch.cat((b & 63, (c >> 4) | ((b >> 6) << 4)), -1)
    codes = _nibbles(blocks[..., 16:].view(*blocks.shape[:2], 4, 32))
    return codes.flatten(1), (d * scale).flatten(1), (-dmin * low).flatten(1)
