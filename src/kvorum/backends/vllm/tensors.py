"""A header of JSON and some tensors as bytes, and back: what goes between the engine and vLLM's workers.

vLLM's queues pickle what they carry. They are given bytes, so no tensor, no class and no code of ours goes that way.
The form is that of safetensors, with the header as one more tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from safetensors.torch import load, save
from torch import Tensor

Header: TypeAlias = Any
"""JSON that is read by whoever knows how it was written."""

_HEADER = "header"


def pack(header: Header, tensors: Mapping[str, Tensor]) -> bytes:
    """Bytes of ``header`` and ``tensors``, which may lie on any device and must not share memory."""
    text = torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8)
    found: bytes = save({_HEADER: text, **{name: x.detach().cpu().contiguous() for name, x in tensors.items()}})
    return found


def unpack(data: bytes) -> tuple[Header, dict[str, Tensor]]:
    """What was packed; tensors on the CPU, which may be written to."""
    tensors: dict[str, Tensor] = load(data)
    return json.loads(tensors.pop(_HEADER).numpy().tobytes()), tensors
