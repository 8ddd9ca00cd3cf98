"""Blocks that clients hold: the cache as shared memory. Of the engine's loop.

A block is made with text in it, encoded behind a view of other blocks; it can be appended to, stand in the view of any
request, be written to by one, be saved, and is there again, under its id, when the server has been restarted.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kvorum.api import Engine
from kvorum.engine.detokenizer import decode
from kvorum.engine.row import Cost, Row
from kvorum.errors import BlockMismatch, OutOfPages
from kvorum.kv import Block, Gap, Span, View
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.errors import ApiError, busy, conflict, missing, unstored
from kvorum.serve.reply_models import BlockReply
from kvorum.serve.request_models import ViewItem
from kvorum.store.blocks import saved_length


@dataclass(frozen=True, slots=True)
class SavedBlock:
    """What is known of a block in the store without reading it."""

    name: str
    created: float


@dataclass(slots=True, eq=False)
class ClientBlock:
    """A client's block. ``writing`` is whether a request writes to it now."""

    id: str
    name: str
    block: Block
    created: float = field(default_factory=time.time)
    saved: bool = False
    writing: bool = False


class ClientBlocks:
    """The blocks of all clients, in the cache and in the store."""

    def __init__(self, engine: Engine, admission: Admission, folder: Path, most: int) -> None:
        self._engine, self._admission, self._folder, self._most = engine, admission, folder, most
        self._held: dict[str, ClientBlock] = {}
        self._on_disk: dict[str, SavedBlock] = {}
        for path in sorted(folder.glob("block_*.json")):
            try:
                about = json.loads(path.read_text(encoding="utf-8"))
                self._on_disk[path.stem] = SavedBlock(str(about["name"]), float(about["created"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a file that was never finished

    @property
    def pages(self) -> int:
        """Pages of the cache that all blocks in it take."""
        return sum(len(held.block.table) for held in self._held.values())

    # -- finding -----------------------------------------------------------------------------------------------

    async def find(self, block: str, client: str) -> ClientBlock:
        """The block of that id, read from its file where it was saved. Raises ApiError 404, 409, 429."""
        if block not in self._held:
            await self._load(block, client)
        return self._held[block]

    async def _load(self, block: str, client: str) -> None:
        """Read it from its file, with a place for its pages: they are nobody else's then."""
        if block not in self._on_disk:
            raise missing(f"There is no block {block[:80]!r}.")
        path, size = self._folder / f"{block}.safetensors", self._engine.pool.page_size
        try:
            pages = -(-saved_length(path) // size)
            ticket = await self._admission.enter(client, 0, lambda: pages)
            try:
                if block in self._held:  # another request has read it meanwhile
                    return
                if block not in self._on_disk:
                    raise missing(f"There is no block {block[:80]!r}.")
                about = self._on_disk[block]
                loaded = self._engine.load_block(path, name=about.name)
                self._held[block] = ClientBlock(block, about.name, loaded, created=about.created, saved=True)
            finally:
                self._admission.leave(ticket)
        except OutOfPages as error:
            raise busy(str(error), 5) from error
        except (BlockMismatch, OSError) as error:
            raise conflict(f"The saved block {block} cannot be used here: {error}") from error

    async def view(self, items: Sequence[ViewItem], client: str) -> View:
        """A view of blocks and gaps. Raises ApiError 400, 404, 409, 429; ViewError where it cannot be."""
        parts: list[Span | Gap] = []
        for item in items:
            if item.gap is not None and item.model_fields_set == {"gap"}:
                parts.append(Gap(item.gap))
            elif item.block is not None and item.gap is None:
                parts.append(Span((await self.find(item.block, client)).block, item.start or 0, item.to))
            else:
                raise ApiError(400, "An item of a view is {block, from?, to?} or {gap}.", param="view")
        return View(*parts)

    async def listed(self) -> list[BlockReply]:
        """All blocks, in the cache and in the store, the newest first."""
        known = [self.about(held) for held in self._held.values()]
        unread = {name: saved for name, saved in self._on_disk.items() if name not in self._held}
        known += [
            BlockReply(id=name, created=int(it.created), name=it.name, tokens=None, sealed=True, pages=0, saved=True)
            for name, it in unread.items()
        ]
        return sorted(known, key=lambda block: -block.created)

    async def get(self, block: str, client: str) -> BlockReply:
        """A block with its ids and text. Raises ApiError 404, 409, 429."""
        held = await self.find(block, client)
        reply = self.about(held)
        reply.ids = held.block.ids
        reply.text = decode(self._engine.tokenizer, reply.ids) if self._engine.tokenizer is not None else ""
        return reply

    def about(self, held: ClientBlock) -> BlockReply:
        """A block as the API shows it, without its ids and text."""
        block = held.block
        return BlockReply(
            id=held.id,
            created=int(held.created),
            name=held.name,
            tokens=len(block),
            sealed=block.sealed,
            pages=len(block.table),
            saved=held.saved,
        )

    # -- writing -----------------------------------------------------------------------------------------------

    async def create(
        self, name: str, ids: Sequence[int], items: Sequence[ViewItem], sealed: bool, client: str
    ) -> BlockReply:
        """A block with ``ids`` in it, encoded behind what ``items`` show."""
        if len(self._held) + len(self._on_disk) >= self._most:
            raise busy(f"{self._most} blocks are held already; delete some.", 30)
        behind = await self.view(items, client)
        held = ClientBlock(f"block_{secrets.token_hex(12)}", name, self._engine.block(name))
        await self._write(held, behind, ids, client)
        if sealed:
            held.block.seal()
        self._held[held.id] = held
        return self.about(held)

    async def append(self, block: str, ids: Sequence[int], items: Sequence[ViewItem], client: str) -> BlockReply:
        """Write on at a block's end. Raises ApiError 404, 409 where it is sealed or written to, 429."""
        held = await self.find(block, client)
        with self.writing(held):
            await self._write(held, await self.view(items, client), ids, client)
        held.saved = False
        return self.about(held)

    async def _write(self, held: ClientBlock, behind: View, ids: Sequence[int], client: str) -> None:
        if not ids:
            return
        size = self._engine.pool.page_size
        ticket = await self._admission.enter(client, 1, lambda: 1 + -(-len(ids) // size))
        try:
            await self._engine.scheduler.submit([Row(behind.then(held.block), ids=list(ids))], [Cost(0)])
        finally:
            self._admission.leave(ticket)

    @contextmanager
    def writing(self, held: ClientBlock) -> Iterator[Block]:
        """Within it nobody else writes to the block. Raises ApiError 409."""
        if held.block.sealed:
            raise conflict(f"The block {held.id} is sealed; write to a new one behind it.")
        self._unused(held)
        held.writing = True
        try:
            yield held.block
        finally:
            held.writing = False

    def _unused(self, held: ClientBlock) -> None:
        if held.writing:
            raise conflict(f"The block {held.id} is being written to by another request.")

    async def save(self, block: str, client: str) -> BlockReply:
        """Write a block to the store. Raises ApiError 404, 409 while it is written to, 503 for a full disk."""
        held = await self.find(block, client)
        self._unused(held)
        try:
            self._engine.save(held.block, self._folder / f"{held.id}.safetensors")
            partial = self._folder / f"{held.id}.part"
            partial.write_text(json.dumps({"name": held.name, "created": held.created}), encoding="utf-8")
            os.replace(partial, self._folder / f"{held.id}.json")
        except (OSError, RuntimeError) as error:
            raise unstored(f"The block cannot be saved: {error}") from error
        held.saved = True
        self._on_disk[held.id] = SavedBlock(held.name, held.created)
        return self.about(held)

    async def delete(self, block: str) -> None:
        """Forget a block, here and in the store; views that show it keep it while used. Raises ApiError 404."""
        if block not in self._held and block not in self._on_disk:
            raise missing(f"There is no block {block[:80]!r}.")
        self._held.pop(block, None)
        if self._on_disk.pop(block, None) is not None:
            for end in ("json", "safetensors"):
                (self._folder / f"{block}.{end}").unlink(missing_ok=True)
        self._admission.settle()
