"""Writing tensors to a safetensors file that appears whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write ``tensors`` (each contiguous) and ``about`` to ``path``; a file that is there is replaced in one step.

    Raises:
        OSError: the disk is full, say; what was there is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(dict(tensors), partial, metadata=dict(about))
        partial.chmod(0o644)
        os.replace(partial, path)
    except SafetensorError as error:  # it wraps the system's own error in words
        full = "code: 28" in str(error) or "StorageFull" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
    finally:
        partial.unlink(missing_ok=True)
