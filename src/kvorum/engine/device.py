"""Where an engine is loaded, and whether its weights are packed there."""

from __future__ import annotations

import torch

from kvorum.errors import BadRequest
from kvorum.models.packed import native_path


def packs(quantize: str | None, device: torch.device, dtype: str | torch.dtype) -> bool:
    """Whether to pack the weights; "auto" does where that is both possible and faster."""
    if quantize not in (None, "auto", "packed"):
        raise BadRequest(f"There is no quantize {quantize!r}; take auto, packed or None.")
    possible = device.type == "cpu" and str(dtype).removeprefix("torch.") in ("auto", "float32")
    if quantize == "packed" and not possible:
        raise BadRequest("Packed weights need a CPU and dtype auto or float32; take quantize=None.")
    return possible and quantize is not None and (quantize == "packed" or native_path() is not None)


def find_device(name: str) -> torch.device:
    """ "auto" is the GPU if there is one. Raises BadRequest for a device that torch does not know or have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadRequest(f"There is no device {name!r} here; use auto, cpu or cuda.") from error
    return device
