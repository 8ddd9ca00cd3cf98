"""The files of what is kept encoded: where they lie, how much of them there may be, and which go.

They lie in the user's cache folder, readable by the user alone; the longest unused go first. No tensor is read here.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable
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
    What lies there is counted once, and on from there as long as nobody else writes there: looking through thousands of
    files would cost every one that is kept as much.
    """

    def __init__(self, folder: Path | None = None, most: int | None = None) -> None:
        self.folder = cache_root() / "kept" if folder is None else folder
        self.most = read_size(os.environ.get(SIZE)) if most is None else most
        self._sizes: dict[Path, int] = {}
        self._total = 0
        self._oldest: list[tuple[int, Path]] = []
        """A heap of when each was last used, as far as this process knows."""
        self._left: dict[str, int] | None = None
        """``_changed`` as this process left the folder; None: it has not looked yet."""
        self._looked = 0.0

    def add(self, path: Path, write: Callable[[], object]) -> None:
        """Have ``write`` make the file ``path``, and remove the longest unused until the rest is within the size.

        The folder is not looked through for that, unless another process has changed it, or an hour has passed.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # texts are their reader's own
        alone = self._left == self._changed() and time.time() < self._looked + _STALE
        write()
        if alone:
            self._note(path)
            self._remove_old()
            self._left = self._changed()
        else:
            self.trim()

    def trim(self) -> None:
        """Look through the folder, remove the longest unused files until the rest is within the size, and what killed
        processes left."""
        self._left, self._looked = self._changed(), time.time()  # first: what comes in meanwhile is looked for again
        self._sizes.clear()
        self._oldest.clear()
        self._total = 0
        left = False
        for path in self.folder.glob("*/*"):
            if path.suffix != ".part":
                self._note(path)
                continue
            with suppress(OSError):  # another process removed it
                if path.stat().st_mtime < time.time() - _STALE:
                    path.unlink()
                    left = True
        if self._remove_old() or left:
            self._left = self._changed()

    def _note(self, path: Path) -> None:
        """Count a file as it is now."""
        with suppress(OSError):  # another process removed it
            stat = path.stat()
            self._total += stat.st_size - self._sizes.get(path, 0)
            self._sizes[path] = stat.st_size
            heapq.heappush(self._oldest, (stat.st_mtime_ns, path))

    def _remove_old(self) -> bool:
        """Whether any was removed."""
        removed = False
        while self._total > self.most and self._oldest:
            used, path = heapq.heappop(self._oldest)
            if path not in self._sizes:
                continue
            with suppress(OSError):  # another process removed it
                now = path.stat().st_mtime_ns
                if now != used:  # it was used since, or written anew
                    heapq.heappush(self._oldest, (now, path))
                    continue
                path.unlink()
            self._total -= self._sizes.pop(path)
            removed = True
        return removed

    def _changed(self) -> dict[str, int]:
        """When files last came to or went from the folder of each model."""
        found = {}
        with suppress(OSError), os.scandir(self.folder) as models:
            for entry in models:
                found[entry.name] = entry.stat().st_mtime_ns
        return found

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
