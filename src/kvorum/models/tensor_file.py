"""Writing tensors to a safetensors file that appears whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

_LINE = 64


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str], *, aligned: bool = False
) -> None:
    """Write ``tensors`` (each contiguous) and ``about`` to ``path``; a file that is there is replaced in one step.

    ``aligned``: what stands before the tensors is filled up to a multiple of 64 bytes, so that in a mapped file each
    of them begins a cache line, as long as all are of such sizes.

    Raises:
        OSError: the disk is full, say; what was there is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        held = dict(about) | ({"blanks": ""} if aligned else {})
        save_file(dict(tensors), partial, metadata=held)
        if aligned and (missing := -_header(partial) % _LINE):  # how long it is shows when it is written
            save_file(dict(tensors), partial, metadata=held | {"blanks": " " * missing})
        partial.chmod(0o644)
        os.replace(partial, path)
    except SafetensorError as error:  # it wraps the system's own error in words
        full = "code: 28" in str(error) or "StorageFull" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
    finally:
        partial.unlink(missing_ok=True)


def _header(file: Path) -> int:
    """Bytes before the first tensor."""
    with file.open("rb") as opened:
        return 8 + int.from_bytes(opened.read(8), "little")
