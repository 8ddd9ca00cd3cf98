"""Blocks that stay in the cache from one run to the next, before they are looked for on disk.

Runs of a study that come one after the other read the same texts: what one has encoded, the next puts into its view as
it is, and no byte of it is written, read or checked in between.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path

from kvorum.engine.engine import EngineCore
from kvorum.errors import OutOfPages
from kvorum.kv.block import Block
from kvorum.store.kept_blocks import KeptBlocks

_SHARE = 4
"""One part in so many of the cache may be held."""


class HeldBlocks(KeptBlocks):
    """``KeptBlocks`` of which those used last stay in the cache: of one engine, a quarter of its tokens at most."""

    def __init__(self, folder: Path | None = None, most: int | None = None) -> None:
        super().__init__(folder, most)
        self._held: dict[Path, Block] = {}

    def load(
        self, engine: EngineCore, before: Sequence[int], ids: Sequence[int], name: str, label: str = ""
    ) -> Block | None:
        path = self._path(engine, before, ids, label)
        block = self._held.get(path)
        if block is None or block.pool is not engine.pool:
            try:
                block = super().load(engine, before, ids, name, label)
            except OutOfPages:
                self._held.clear()
                block = super().load(engine, before, ids, name, label)
        if block is not None:
            self._hold(engine, path, block)
        return block

    def save(self, engine: EngineCore, before: Sequence[int], block: Block, label: str = "") -> None:
        path = self._path(engine, before, block.ids, label)
        if path in self._held and self._held[path].pool is engine.pool:
            return
        super().save(engine, before, block, label)
        self._hold(engine, path, block)

    def forget(self, label: str) -> int:
        for path in [path for path in self._held if path.name.startswith(f"{label}-")]:
            del self._held[path]
        return super().forget(label)

    def _hold(self, engine: EngineCore, path: Path, block: Block) -> None:
        """Hold it as the one used last, and let go of another engine's and of the longest unused."""
        if not any(one.pool is engine.pool for one in self._held.values()):
            self._held.clear()
            weakref.finalize(engine, self._held.clear)  # a block keeps the whole cache that it is in
        self._held.pop(path, None)
        self._held[path] = block
        most = engine.backend.cache.slots // _SHARE
        held = sum(map(len, self._held.values()))
        while held > most:
            held -= len(self._held.pop(next(iter(self._held))))
