"""Blocks that clients hold: the cache as shared memory. Of the engine's loop.

A block is made with text in it, encoded behind a view of other blocks; it can be appended to, stand in the view of any
request, be written to by one, be saved, and is there again, under its id, when the server has been restarted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from kvorum.api import Engine
from kvorum.engine.detokenizer import decode
from kvorum.engine.row import Cost, Row
from kvorum.errors import BlockMismatch, OutOfPages
from kvorum.kv import Block, Gap, Span, View
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.saved_blocks import ClientBlock, SavedBlocks, about_block
from kvorum.serve.errors import ApiError, busy, conflict, foreign, missing, too_long, unstored
from kvorum.serve.keys.caller import Caller
from kvorum.serve.reply_models.blocks import BlockReply
from kvorum.serve.request_models.blocks import ViewItem
from kvorum.store.blocks import saved_length


class ClientBlocks:
    """The blocks of all clients, in the cache and in the store."""

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        saved: SavedBlocks,
        most: int,
        elsewhere: Callable[[str, str], str | None],
    ) -> None:
        self._engine, self._admission, self._saved, self._most = engine, admission, saved, most
        self._elsewhere = elsewhere
        self._blocks = {held.id: held for held in saved.all()}

    def has(self, block: str, owner: str) -> bool:
        """Whether it is this model's, and of that owner."""
        held = self._blocks.get(block)
        return held is not None and held.owner == owner

    @property
    def unsaved(self) -> bool:
        """Whether there is a block in the cache alone."""
        return any(held.cached is not None and not held.saved for held in list(self._blocks.values()))

    @property
    def pages(self) -> int:
        """Pages of the cache that all blocks in it take."""
        return sum(len(held.block.table) for held in self._blocks.values() if held.cached is not None)

    # -- finding -----------------------------------------------------------------------------------------------

    def _find(self, block: str, caller: Caller) -> ClientBlock:
        if block not in self._blocks and (found := self._saved.find(block)) is not None:
            self._blocks[block] = found  # another server has saved it meanwhile
        held = self._blocks.get(block)
        if held is None or held.owner != caller.owner:
            other = self._saved.model_of(block, caller.owner) or self._elsewhere(block, caller.owner)
            if other is not None and other != self._saved.model:
                raise foreign(block, other, self._saved.model)
            raise missing(f"There is no block {block[:80]!r}.")
        return held

    async def find(self, block: str, caller: Caller) -> ClientBlock:
        """The block of that id, read from its file where it was saved. Raises ApiError 404, 409, 429."""
        held = self._find(block, caller)
        if held.cached is None:
            await self._load(held, caller)
        return held

    async def _load(self, held: ClientBlock, caller: Caller) -> None:
        """Read it from its file, with a place for its pages: they are nobody else's then."""
        try:
            with self._saved.tokens(held.id) as path:
                pages = self._engine.pool.pages_for(saved_length(path))
                ticket = await self._admission.enter(caller.turn, 0, lambda: pages)
                try:
                    self._find(held.id, caller)  # which may have been deleted meanwhile
                    if held.cached is None:  # nor has another request read it
                        held.cached = self._engine.load_block(path, name=held.name)
                finally:
                    self._admission.leave(ticket)
        except OutOfPages as error:
            raise busy(str(error), 5) from error
        except (BlockMismatch, OSError) as error:
            raise conflict(f"The saved block {held.id} cannot be used here: {error}") from error

    async def view(self, items: Sequence[ViewItem], caller: Caller) -> View:
        """A view of blocks and gaps. Raises ApiError 400, 404, 409, 429; ViewError where it cannot be."""
        parts: list[Span | Gap] = []
        for item in items:
            if item.gap is not None and item.model_fields_set == {"gap"}:
                parts.append(Gap(item.gap))
            elif item.block is not None and item.gap is None:
                block = (await self.find(item.block, caller)).block
                parts.append(Span(block, item.start or 0, item.to, item.at))
            else:
                raise ApiError(400, "An item of a view is {block, from?, to?, at?} or {gap}.", param="view")
        return View(*parts)

    async def listed(self, caller: Caller) -> list[BlockReply]:
        """All blocks of the caller's, in the cache and in the store, the newest first."""
        own = (held for held in self._blocks.values() if held.owner == caller.owner)
        return sorted(map(about_block, own), key=lambda block: -block.created)

    async def get(self, block: str, caller: Caller) -> BlockReply:
        """A block with its ids and text. Raises ApiError 404, 409, 429."""
        held = await self.find(block, caller)
        reply = about_block(held)
        reply.ids = held.block.ids
        reply.text = decode(self._engine.tokenizer, reply.ids) if self._engine.tokenizer is not None else ""
        return reply

    # -- documents ---------------------------------------------------------------------------------------------

    async def words(self, block: str, caller: Caller) -> str:
        """The text of a block: of a kept document as it came, of another what its tokens say. Raises ApiError."""
        held = await self.find(block, caller)
        if held.words is not None:
            return held.words
        return decode(self._engine.tokenizer, held.block.ids) if self._engine.tokenizer is not None else ""

    def encoded(self, before: Sequence[int], ids: Sequence[int], owner: str) -> ClientBlock | None:
        """The kept document of ``owner``'s with these tokens, encoded behind these, that is in the cache."""
        for held in self._blocks.values():
            block = held.cached
            if held.owner != owner or held.words is None or block is None or not block.sealed or len(block) != len(ids):
                continue
            if block.ids == list(ids) and list(held.before) == list(before):
                return held
        return None

    def keep(self, words: str, before: Sequence[int], block: Block, owner: str) -> ClientBlock:
        """Hold a document's block for ``owner``, which a program has encoded, until a client deletes it."""
        held = self._fresh(block.name, block)
        held.words, held.before, held.owner = words, tuple(before), owner
        self._blocks[held.id] = held
        return held

    def _fresh(self, name: str, block: Block) -> ClientBlock:
        return ClientBlock(f"block_{secrets.token_hex(12)}", name, time.time(), self._saved.model, block)

    def room_for(self, more: int) -> None:
        """Raises ApiError 429 where so many more blocks cannot be held."""
        if len(self._blocks) + more > self._most:
            raise busy(f"{len(self._blocks)} of {self._most} blocks are held already; delete some.", 30)

    # -- writing -----------------------------------------------------------------------------------------------

    async def create(
        self, name: str, ids: Sequence[int], items: Sequence[ViewItem], sealed: bool, caller: Caller
    ) -> BlockReply:
        """A block with ``ids`` in it, encoded behind what ``items`` show."""
        self.room_for(1)
        behind = await self.view(items, caller)
        held = self._fresh(name, self._engine.block(name))
        held.owner = caller.owner
        await self._write(held, behind, ids, caller)
        if sealed:
            held.block.seal()
        self._blocks[held.id] = held
        return about_block(held)

    async def append(self, block: str, ids: Sequence[int], items: Sequence[ViewItem], caller: Caller) -> BlockReply:
        """Write on at a block's end. Raises ApiError 404, 409 where it is sealed or written to, 429."""
        held = await self.find(block, caller)
        with self.writing(held):
            await self._write(held, await self.view(items, caller), ids, caller)
        held.saved = False
        return about_block(held)

    async def _write(self, held: ClientBlock, behind: View, ids: Sequence[int], caller: Caller) -> None:
        if not ids:
            return
        longest, pages = self._engine.shape.longest, 1 + self._engine.pool.pages_for(len(ids))
        total = len(behind) + len(held.block) + len(ids)
        if longest is not None and total > longest:
            raise too_long(f"The block would end at position {total}", longest)
        ticket = await self._admission.enter(caller.turn, 1, lambda: pages)
        try:
            await self._engine.scheduler.submit([Row(behind.then(held.block), ids=list(ids))], [Cost(0)])
        finally:
            self._admission.leave(ticket)
        caller.spend(len(ids))

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

    async def save(self, block: str, caller: Caller) -> BlockReply:
        """Write a block to the store. Raises ApiError 404, 409 while it is written to, 503 for a full disk."""
        held = await self.find(block, caller)
        self._unused(held)
        try:
            self._saved.write(held, self._engine)
        except (OSError, RuntimeError) as error:
            raise unstored(f"The block cannot be saved: {error}") from error
        held.saved = True
        return about_block(held)

    async def delete(self, block: str, caller: Caller) -> None:
        """Forget a block, here and in the store; views that show it keep it while used. Raises ApiError 404, 503."""
        held = self._find(block, caller)
        try:
            self._saved.delete(block)
        except OSError as error:
            raise unstored(f"The block cannot be deleted: {error}") from error
        del self._blocks[held.id]
        self._admission.settle()
