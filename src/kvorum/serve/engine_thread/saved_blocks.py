"""Blocks of clients as they are known, and saved: beside the tokens of each (``Engine.save``) a file that tells of it.

The folder is one for all models of a server, and may be one of several servers. A block is good for the model that has
computed it alone; one that an earlier kvorum has saved does not say which that was.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvorum.api import Engine
from kvorum.jsontypes import Json
from kvorum.kv import Block
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

    folder: Path
    model: str
    others: Sequence[str] = ()
    first: bool = True

    def all(self) -> Iterator[ClientBlock]:
        """Each that can be read."""
        for path in sorted(self.folder.glob("block_*.json")):
            if (held := self._read(path)) is not None and self._ours(held):
                yield held

    def find(self, block: str) -> ClientBlock | None:
        """The one of that id, if it is this model's."""
        held = self._read(self.folder / f"{block}.json") if _ID.fullmatch(block) else None
        return held if held is not None and self._ours(held) else None

    def model_of(self, block: str, owner: str) -> str | None:
        """The model whose a saved block of ``owner``'s is, of those that tell."""
        held = self._read(self.folder / f"{block}.json") if _ID.fullmatch(block) else None
        return held.model or None if held is not None and held.owner == owner else None

    def tokens(self, block: str) -> Path:
        """The file of its tokens, keys and values."""
        return self.folder / f"{block}.safetensors"

    def write(self, held: ClientBlock, engine: Engine) -> None:
        """Save a block. Raises OSError, RuntimeError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        engine.save(held.block, self.tokens(held.id))
        partial = self.folder / f"{held.id}.part"
        partial.write_text(json.dumps(_told(held)), encoding="utf-8")
        os.replace(partial, self.folder / f"{held.id}.json")

    def delete(self, block: str) -> None:
        """Forget it, if it is there."""
        for end in ("json", "safetensors"):
            (self.folder / f"{block}.{end}").unlink(missing_ok=True)

    def _ours(self, held: ClientBlock) -> bool:
        return held.model == self.model or (self.first and held.model not in self.others)

    def _read(self, path: Path) -> ClientBlock | None:
        """What a file tells; None: it is not there, or was never finished."""
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            name, created, model = str(about["name"]), float(about["created"]), str(about.get("model", ""))
            words, before = about.get("words"), [int(token) for token in about.get("before", ())]
            owner = str(about.get("owner", NOBODY))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return ClientBlock(path.stem, name, created, model, saved=True, words=words, before=before, owner=owner)


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
