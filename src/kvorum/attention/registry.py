"""Which path the attention of an engine takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kvorum.attention.native import NativeAttention
from kvorum.attention.rotary import Rotary
from kvorum.attention.triton import attention as triton
from kvorum.attention.triton.attention import TritonAttention
from kvorum.errors import BadRequest, KvorumError
from kvorum.kv import PagePool


def choose(
    name: str, pool: PagePool, rotaries: Sequence[Rotary], heads: Sequence[int], dtype: torch.dtype
) -> NativeAttention | TritonAttention | None:
    """The fast path called ``name``, or None for the reference. ``heads``: query heads of each layer;
    ``dtype``: of the queries.

    "auto" takes the Triton kernels on a GPU and the native ones on a CPU where they are installed and cover the pool.

    Raises:
        BadRequest: no such path, or it does not cover the pool. MissingExtra: triton is not installed.
    """
    if name not in ("auto", "native", "triton", "reference"):
        raise BadRequest(f"There is no attention {name!r}; take auto, native, triton or reference.")
    if name == "triton" or (name == "auto" and pool.device.type == "cuda"):
        lack = triton.lacks(pool)
        if lack is None:
            return TritonAttention(pool, rotaries, heads)
        if name == "triton":
            raise lack
    native = NativeAttention.of(pool, rotaries, dtype) if name in ("auto", "native") else None
    if name == "native" and native is None:
        raise BadRequest(
            "The native attention needs the distribution kvorum-native, a float32 model on a CPU and a cache in "
            "float32 or float16; take attention='auto'."
        )
    return native


def lacks_tap(attention: NativeAttention | TritonAttention | None) -> KvorumError | None:
    """The error that says why a path has no tap, or None; the reference has one."""
    if isinstance(attention, TritonAttention):
        return BadRequest("The Triton attention has no tap; load the engine with attention='reference'.")
    return None
