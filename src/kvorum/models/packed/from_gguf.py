"""The tensors of a GGUF file as packed matrices.

Blocks of 4 bits (Q4_0, Q4_1, Q4_K) are taken as they are; what is of another type, or was changed, is brought to 7
bits. Which tensors a parameter is, is `gguf.model`'s.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kvorum.models.finite import require_finite
from kvorum.models.gguf.file import GGUFTensor
from kvorum.models.gguf.model import Source
from kvorum.models.packed.matrix import PackedPart, chunk_rows, pack, pack_weight, stack


def source_part(source: Source, bias: Tensor | None = None) -> PackedPart:
    """A parameter of two dimensions packed."""
    if source.change is not None:
        return pack_weight(source.values(), 7, bias)
    (tensor,) = source.tensors
    return packed_part(tensor, bias, source.order)


def packed_part(tensor: GGUFTensor, bias: Tensor | None = None, order: Tensor | None = None) -> PackedPart:
    """A tensor of two dimensions packed, its rows taken in `order` (LongTensor [rows]) if given.

    Raises `ModelFileError`: something in it is no finite number.
    """
    unpack = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k}.get(tensor.type)
    raw = tensor.data.reshape(-1, tensor.data.shape[-1])  # a matrix of one row is there without that dimension
    raw = raw if order is None else raw[order.numpy()]

    pieces = []
    step = chunk_rows(tensor.shape[-1])
    for start in range(0, len(raw), step):
        rows = raw[start : start + step]
        if unpack is None:
            pieces.append(pack_weight(require_finite(tensor.name, tensor.dequantize(rows)), 7))
        else:
            codes, scale, low = unpack(torch.from_numpy(np.array(rows)))
            pieces.append(pack(codes, require_finite(tensor.name, scale), require_finite(tensor.name, low), 4))
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
