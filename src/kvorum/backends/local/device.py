"""Where an engine is loaded, whether its weights are packed there, and what its cache holds."""

from __future__ import annotations

import torch

from kvorum.errors import BadRequest
from kvorum.models.packed.products import native_path


def packs(quantize: str | None, device: torch.device, dtype: str | torch.dtype) -> bool:
    """Whether to pack the weights; "auto" does where that is both possible and faster."""
    if quantize not in (None, "auto", "packed"):
        raise BadRequest(f"There is no quantize {quantize!r}; take auto, packed or None.")
    possible = device.type == "cpu" and str(dtype).removeprefix("torch.") in ("auto", "float32")
    if quantize == "packed" and not possible:
        raise BadRequest("Packed weights need a CPU and dtype auto or float32; take quantize=None.")
    return possible and quantize is not None and (quantize == "packed" or native_path() is not None)


def cache_dtype(asked: str | torch.dtype, model: torch.dtype, device: torch.device) -> torch.dtype:
    """What keys and values are stored in; "auto": what the model computes in.

    Raises:
        BadRequest: no such dtype, or a GPU, whose kernels take the model's.
    """
    if asked == "auto":
        return model
    name = str(asked).removeprefix("torch.")
    if name not in ("float16", "bfloat16", "float32", "float64"):
        raise BadRequest(f"There is no kv_dtype {name!r}; take auto, float32, float16, bfloat16 or float64.")
    found: torch.dtype = getattr(torch, name)
    if found != model and device.type != "cpu":
        raise BadRequest(f"kv_dtype={name} needs a CPU; on a GPU load the model with dtype={name}.")
    return found


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
