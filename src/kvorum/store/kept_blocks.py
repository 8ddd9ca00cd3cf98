"""Blocks that are kept on disk, so that a text that comes again need not be encoded again.

A block is found by what stands in it and before it, by the model, and by all that decides how its numbers are rounded:
what is found has the bits that encoding would give. The files lie in the user's cache folder, readable by the user
alone; the longest unused go first. Whatever is wrong with a file, the text is encoded anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kvorum.engine.engine import EngineCore
from kvorum.errors import BadRequest, BlockMismatch
from kvorum.kv.block import Block
from kvorum.models.cache_folder import cache_root
from kvorum.store.blocks import load_block, save_block
from kvorum.versions import BLOCK, installed_version
from kvorum.wording import size

SIZE = "KVORUM_KEPT"
"""The variable that says how much may be kept: bytes, or with a unit as in 500MB, 8GB; 0 keeps nothing."""
DEFAULT_SIZE = 4_000_000_000
_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_STALE = 3600.0
"""Seconds after which a half-written file belongs to nobody."""


class KeptBlocks:
    """Blocks in ``folder``, of at most ``most`` bytes in all. Any number of processes may use a folder at once."""

    def __init__(self, folder: Path | None = None, most: int | None = None) -> None:
        self.folder = cache_root() / "kept" if folder is None else folder
        self.most = read_size(os.environ.get(SIZE)) if most is None else most

    def load(self, engine: EngineCore, before: Sequence[int], ids: Sequence[int], name: str) -> Block | None:
        """The sealed block of ``ids`` as encoded behind ``before``; None where it is not there or is damaged.

        Raises:
            OutOfPages: the cache has no room for it.
        """
        path = self._path(engine, before, ids)
        try:
            block = load_block(path, engine.backend, engine.pool, name)
        except (BlockMismatch, OSError):
            return None
        if block.ids != list(ids):
            return None
        with suppress(OSError):  # used now, so it goes last
            os.utime(path)
        return block

    def save(self, engine: EngineCore, before: Sequence[int], block: Block) -> None:
        """Keep ``block``, which was encoded behind ``before``. Where it cannot be kept, it is not."""
        if len(block) * engine.pool.bytes_per_token > self.most:
            return
        path = self._path(engine, before, block.ids)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)  # texts are their reader's own
            save_block(block, path, engine.backend, engine.pool)
            self.trim()

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

    def _path(self, engine: EngineCore, before: Sequence[int], ids: Sequence[int]) -> Path:
        """The file of a block: by its content, what stands before it, and how it is encoded."""
        backend = engine.backend
        about = {key: value for key, value in engine.about().items() if key not in ("name", "kv_tokens", "page_size")}
        versions = [installed_version(package) for package in ("kvorum", "kvorum-native", "torch")]
        how = [BLOCK.key, backend.fingerprint, backend.rounding, about, versions]
        text = json.dumps([how, len(before), [*before, *ids]], sort_keys=True)
        return self.folder / backend.fingerprint[:16] / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"


def read_size(words: str | None) -> int:
    """Bytes that ``words`` say, as in "8GB", "500 MB", "0"; None: the default. Raises BadRequest for other words."""
    if words is None or not words.strip():
        return DEFAULT_SIZE
    text = words.strip().upper()
    unit = text.lstrip("0123456789.").strip()
    number = text.removesuffix(unit).strip() if unit else text
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise BadRequest(
            f"{SIZE}={words!r} is no size; give bytes, or a number with a unit as in 8GB "
            f"(default: {size(DEFAULT_SIZE)}); 0 keeps nothing."
        ) from None
