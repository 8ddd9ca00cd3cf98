"""A header of JSON and some tensors as bytes, and back: what goes between the engine and vLLM's workers.

vLLM's queues pickle what they carry. They are given bytes, so no tensor, no class and no code of ours goes that way.
Eight bytes say how long the JSON behind them is, which names each tensor with its dtype and sizes; then the tensors'
own bytes, each begun at a multiple of eight. A tick's few small tensors take a tenth of a millisecond so, and several
times that in the form of safetensors, which is made for files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor

Header: TypeAlias = Any
"""JSON that is read by whoever knows how it was written."""

_WIDTH = 8


def pack(header: Header, tensors: Mapping[str, Tensor]) -> bytes:
    """Bytes of ``header`` and ``tensors``, which may lie on any device."""
    told, parts = [], [b"", b""]
    for name, tensor in tensors.items():
        told.append([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        parts += [raw, bytes(-len(raw) % _WIDTH)]
    text = json.dumps([header, told]).encode()
    text += b" " * (-len(text) % _WIDTH)
    parts[:2] = [len(text).to_bytes(_WIDTH, "little"), text]
    return b"".join(parts)


def unpack(data: bytes) -> tuple[Header, dict[str, Tensor]]:
    """What was packed; tensors on the CPU, which may be written to."""
    start = _WIDTH + int.from_bytes(data[:_WIDTH], "little")
    header, told = json.loads(data[_WIDTH:start])
    own = bytearray(memoryview(data)[start:])
    tensors: dict[str, Tensor] = {}
    at = 0
    for name, kind, shape in told:
        dtype, count = getattr(torch, kind), prod(shape)
        tensors[name] = (
            torch.frombuffer(own, dtype=dtype, count=count, offset=at).view(shape)
            if count
            else torch.empty(shape, dtype=dtype)
        )
        at += -(-count * dtype.itemsize // _WIDTH) * _WIDTH
    return header, tensors
