"""Blocks that are kept on disk, so that a text that comes again need not be encoded again.

A block is found by what stands in it and before it, by the model, and by all that decides how its numbers are rounded:
what is found has the bits that encoding would give. Whatever is wrong with a file, the text is encoded anew. Where the
files lie, and which go, is in ``kept_files``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from kvorum.engine.engine import EngineCore
from kvorum.errors import BlockMismatch
from kvorum.kv.block import Block
from kvorum.store.blocks import load_block, save_block
from kvorum.store.kept_files import KeptFiles
from kvorum.versions import BLOCK, installed_version


class KeptBlocks(KeptFiles):
    """Blocks in ``folder``, of at most ``most`` bytes in all. Several processes may use a folder at once.

    What belongs to something that may be forgotten is labelled with it; ``forget`` removes it, whatever the model.
    """

    def load(
        self, engine: EngineCore, before: Sequence[int], ids: Sequence[int], name: str, label: str = ""
    ) -> Block | None:
        """The sealed block of ``ids`` as encoded behind ``before``; None where it is not there or is damaged.

        Raises:
            OutOfPages: the cache has no room for it.
        """
        block = self.load_begun(engine, before, ids, name, label)
        return None if block is None else block.seal()

    def load_begun(
        self, engine: EngineCore, before: Sequence[int], ids: Sequence[int], name: str, label: str = ""
    ) -> Block | None:
        """As ``load``, but the block is open: ``ids`` are its beginning, and somebody writes on behind them."""
        path = self._path(engine, before, ids, label)
        try:
            block = load_block(path, engine.backend, engine.pool, name, sealed=False)
        except (BlockMismatch, OSError):
            return None
        if block.ids != list(ids):
            return None
        with suppress(OSError):  # used now, so it goes last
            os.utime(path)
        return block

    def save(self, engine: EngineCore, before: Sequence[int], block: Block, label: str = "") -> None:
        """Keep ``block``, which was encoded behind ``before``. Where it cannot be kept, it is not."""
        self.save_beginning(engine, before, block, len(block), label)

    def save_beginning(
        self, engine: EngineCore, before: Sequence[int], block: Block, length: int, label: str = ""
    ) -> None:
        """Keep the first ``length`` tokens of ``block``, as ``save`` does all of it."""
        if length * engine.pool.bytes_per_token > self.most:
            return
        path = self._path(engine, before, block.tail(0, length), label)
        with suppress(OSError):
            self.add(path, partial(save_block, block, path, engine.backend, engine.pool, length))

    def _path(self, engine: EngineCore, before: Sequence[int], ids: Sequence[int], label: str) -> Path:
        """The file of a block: by its content, what stands before it, and how it is encoded."""
        backend = engine.backend
        about = {key: value for key, value in engine.about().items() if key not in ("name", "kv_tokens", "page_size")}
        versions = [installed_version(package) for package in ("kvorum", "kvorum-native", "torch")]
        how = [BLOCK.key, backend.fingerprint, backend.rounding, about, versions]
        text = json.dumps([how, len(before), [*before, *ids]], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / backend.fingerprint[:16] / f"{label}{'-' * bool(label)}{name}.safetensors"
