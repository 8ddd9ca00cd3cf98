"""The compiled kernels of the optional distribution ``kvorum-native``: found, checked for their version, or left out.

Attention, packed products and draws take them from here. ``KVORUM_NATIVE=0`` leaves them out.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import kvorum_native

ABI = 3
"""The version of the native calls that are made here; ``native/cpp/module.cpp`` has it too."""


class Kernels(Protocol):
    """The module ``kvorum_native``; the stub beside its source says what each call does."""

    AttentionLayer: type[kvorum_native.AttentionLayer]
    AttentionPlan: type[kvorum_native.AttentionPlan]
    Decoder: type[kvorum_native.Decoder]
    Draws: type[kvorum_native.Draws]
    Matrix: type[kvorum_native.Matrix]
    Rotation: type[kvorum_native.Rotation]
    cpu: Callable[[], str]
    path: Callable[[], str]
    paths: Callable[[], list[str]]
    use: Callable[[str], None]
    quantize: Callable[..., None]
    rms_quantize: Callable[..., None]
    silu_mul_quantize: Callable[..., None]


@functools.cache
def kernels() -> Kernels | None:
    """The module ``kvorum_native``, or None where it is not installed, of another version, or switched off.

    ``KVORUM_NATIVE`` is read once.
    """
    if os.environ.get("KVORUM_NATIVE", "1") == "0":
        return None
    try:
        import kvorum_native as native
    except ImportError:
        return None
    found = getattr(native, "ABI", 0)
    if found == ABI:
        return native
    age = "old" if found < ABI else "new"
    warnings.warn(
        f"The installed kvorum-native is too {age} for this kvorum and is not used, which is many times slower: "
        "install the one that came with this kvorum (pip install ./native).",
        stacklevel=2,
    )
    return None
