"""Weights that are no finite numbers: damage that can be known, and that would make every logit none."""

from __future__ import annotations

import torch
from torch import Tensor

from kvorum.errors import ModelFileError


def is_finite(values: Tensor) -> bool:
    """Whether all of `values` are finite numbers; whole numbers and floats of 8 bits are not looked at.

    A sum tells it at once: what is not finite never leaves it.
    """
    if not values.is_floating_point() or values.element_size() == 1:
        return True
    return bool(torch.isfinite(values.sum(dtype=torch.float32))) or bool(torch.isfinite(values).all())


def require_finite(name: str, values: Tensor) -> Tensor:
    """`values` as they are. Raises `ModelFileError` naming the tensor that they are of, if not all are finite."""
    if not is_finite(values):
        raise ModelFileError(f"The weights are damaged: {name} holds what is no finite number; fetch the file again.")
    return values
