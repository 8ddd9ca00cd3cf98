"""The files of what is kept encoded: where they lie, how much of them there may be, and which go.

They lie in the user's cache folder, readable by the user alone; the longest unused go first. No tensor is read here.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from kvorum.errors import BadRequest
from kvorum.models.cache_folder import cache_root
from kvorum.wording import size

SIZE = "KVORUM_KEPT"
"""The variable that says how much may be kept: bytes, or with a unit as in 500MB, 8GB; 0 keeps nothing."""
DEFAULT_SIZE = 4_000_000_000
_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_STALE = 3600.0
"""Seconds after which a half-written file belongs to nobody."""


class KeptFiles:
    """Files in ``folder``, of at most ``most`` bytes in all. Several processes may use a folder at once.

    Each lies in a folder of its model, and its name begins with the label of what it belongs to, where there is one.
    """

    def __init__(self, folder: Path | None = None, most: int | None = None) -> None:
        self.folder = cache_root() / "kept" if folder is None else folder
        self.most = read_size(os.environ.get(SIZE)) if most is None else most

    def trim(self) -> None:
        """Remove the longest unused files until the rest is within the size, and what killed processes left."""
        found = []
        for path in self.folder.glob("*/*"):
            with suppress(OSError):  # another process removed it
                stat = path.stat()
                if path.suffix == ".part":
                    if stat.st_mtime < time.time() - _STALE:
                        path.unlink()
                    continue
                found.append((stat.st_mtime, stat.st_size, path))
        total = sum(bytes_ for _, bytes_, _ in found)
        for _, bytes_, path in sorted(found):
            if total <= self.most:
                break
            with suppress(OSError):
                path.unlink()
            total -= bytes_

    def forget(self, label: str) -> int:
        """Remove all that belongs to ``label``, of any model; how many files that were."""
        count = 0
        for path in self.folder.glob(f"*/{label}-*"):
            with suppress(OSError):
                path.unlink()
                count += 1
        return count


def read_size(words: str | None, source: str = SIZE) -> int:
    """Bytes that ``words`` say, as in "8GB", "500 MB", "0"; None: the default. Raises BadRequest for other words, which
    tells their ``source``."""
    if words is None or not words.strip():
        return DEFAULT_SIZE
    text = words.strip().upper()
    unit = text.lstrip("0123456789.").strip()
    number = text.removesuffix(unit).strip() if unit else text
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise BadRequest(
            f"{source}={words!r} is no size; give bytes, or a number with a unit as in 8GB "
            f"(default: {size(DEFAULT_SIZE)}); 0 keeps nothing."
        ) from None
