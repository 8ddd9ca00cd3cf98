"""The attention kernels, and which of them an engine takes."""

from __future__ import annotations

from kvorum.attention.kernel import AttentionKernel, AttentionSetup
from kvorum.attention.native import NativeAttention as NativeAttention
from kvorum.attention.reference import ReferenceAttention as ReferenceAttention
from kvorum.attention.triton.attention import TritonAttention as TritonAttention
from kvorum.errors import BadRequest

KERNELS: dict[str, type[AttentionKernel]] = {
    kind.name: kind
    for kind in sorted(AttentionKernel.among(globals().values()), key=lambda kind: kind.preference, reverse=True)
}
"""Those imported above, by name, the preferred ones first."""


def choose(name: str, setup: AttentionSetup) -> AttentionKernel:
    """The kernel called ``name``, ready for ``setup``; "auto": the fastest that covers it.

    Raises:
        BadRequest: there is no such kernel, or it does not cover the setup. MissingExtra: a package is not installed.
    """
    if name == "auto":
        return next(k for k in KERNELS.values() if k.suits(setup) and k.lacks(setup) is None)(setup)
    if name not in KERNELS:
        raise BadRequest(f"There is no attention {name!r}; take {', '.join(('auto', *KERNELS))}.")
    if (lack := KERNELS[name].lacks(setup)) is not None:
        raise lack
    return KERNELS[name](setup)
