"""Blocks of clients as they are known, and saved: beside the tokens of each (``Engine.save``) a file that tells of it.

The folder is one for all models of a server, and may be one of several servers; ``block_folder`` has its kinds. A block
is good for the model that has computed it alone; one that an earlier kvorum has saved does not say which that was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from kvorum.api import Engine
from kvorum.jsontypes import Json
from kvorum.kv import Block
from kvorum.serve.engine_thread.block_folder import BlockFolder
from kvorum.serve.reply_models.blocks import BlockReply
from kvorum.store.run_tables import NOBODY

_ID = re.compile(r"block_[0-9a-f]{24}")


@dataclass(slots=True, eq=False)
class ClientBlock:
    """A client's block. ``cached`` is None while it is in the store alone; ``writing``: whether a request writes to it
    now. Of a document that was kept as a program has encoded it, ``words`` are its text and ``before`` what stood
    before it. ``owner``: whose it is; nobody else's request finds it. ``model``: whose keys and values are in it."""

    id: str
    name: str
    created: float
    model: str
    cached: Block | None = None
    saved: bool = False
    writing: bool = False
    words: str | None = None
    before: Sequence[int] = ()
    owner: str = NOBODY

    @property
    def block(self) -> Block:
        """The block in the cache, where it is there."""
        assert self.cached is not None
        return self.cached


@dataclass(frozen=True, slots=True)
class SavedBlocks:
    """Those of one model in the ``folder``. ``others``: the names of a server's other models, whose blocks are not
    this one's; ``first``: whether blocks of none of them, or of which it is not known, are taken for this model's."""

    folder: BlockFolder
    model: str
    others: Sequence[str] = ()
    first: bool = True

    def all(self) -> Iterator[ClientBlock]:
        """Each that can be read. Raises OSError: the folder cannot."""
        for block in self.folder.all():
            if (held := self._read(block)) is not None and self._ours(held):
                yield held

    def find(self, block: str) -> ClientBlock | None:
        """The one of that id, if it is this model's."""
        held = self._read(block)
        return held if held is not None and self._ours(held) else None

    def model_of(self, block: str, owner: str) -> str | None:
        """The model whose a saved block of ``owner``'s is, of those that tell."""
        held = self._read(block)
        return held.model or None if held is not None and held.owner == owner else None

    def tokens(self, block: str) -> AbstractContextManager[Path]:
        """Within it, its tokens, keys and values are a file of this machine. Raises OSError."""
        return self.folder.tensors(block)

    def write(self, held: ClientBlock, engine: Engine) -> None:
        """Save a block. Raises OSError, RuntimeError."""
        self.folder.write(held.id, lambda path: engine.save(held.block, path), json.dumps(_told(held)))

    def delete(self, block: str) -> None:
        """Forget it, if it is there. Raises OSError."""
        self.folder.delete(block)

    def _ours(self, held: ClientBlock) -> bool:
        return held.model == self.model or (self.first and held.model not in self.others)

    def _read(self, block: str) -> ClientBlock | None:
        """What is told of one; None: it is not there, or was never finished."""
        if not _ID.fullmatch(block):
            return None
        try:
            about = json.loads(self.folder.told(block))
            name, created, model = str(about["name"]), float(about["created"]), str(about.get("model", ""))
            words, before = about.get("words"), [int(token) for token in about.get("before", ())]
            owner = str(about.get("owner", NOBODY))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return ClientBlock(block, name, created, model, saved=True, words=words, before=before, owner=owner)


def _told(held: ClientBlock) -> dict[str, Json]:
    """What is saved of a block beside its tokens."""
    told: dict[str, Json] = {"name": held.name, "created": held.created, "model": held.model}
    if held.owner != NOBODY:
        told["owner"] = held.owner
    return told if held.words is None else {**told, "words": held.words, "before": list(held.before)}


def about_block(held: ClientBlock) -> BlockReply:
    """A block as the API shows it, without its ids and text."""
    block = held.cached
    return BlockReply(
        id=held.id,
        created=int(held.created),
        name=held.name,
        model=held.model,
        tokens=None if block is None else len(block),
        sealed=block is None or block.sealed,
        pages=0 if block is None else len(block.table),
        saved=held.saved,
    )
