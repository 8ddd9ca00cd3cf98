"""Prompts that begin alike share their beginning: it is encoded once.

Exact, because a prompt's tokens see nothing but the prompt before them. An entry is a view of a whole prompt; another
prompt that has its first k tokens in common forks that view at k. A program goes on writing where its prompt ends, so
it gets a copy: to the same indices of its own block, which turns nothing, so that every bit is as if it had encoded the
prompt itself. The longest unused entries go first. Prompts of one owner are not shared with another's: how much of a
prompt is there would tell who has sent it before.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import numpy as np
from torch import Tensor

from kvorum.engine.budget import Ledger
from kvorum.engine.engine import EngineCore
from kvorum.engine.row import Cost, Row
from kvorum.kv import Block, Span, View
from kvorum.runs.beginnings import Beginnings
from kvorum.runs.kept_prompts import Encoded, Entry, Prefix

LEAST = 16
"""Tokens in common below which sharing is not worth it."""
SHORT = 64
"""A prompt's end of fewer tokens than this has the reply behind it in the same block, a longer one in another block.

So a prompt that comes again can stand as it did, its short end copied and all else shared: its reply is the same.
"""


Known: TypeAlias = tuple[Sequence[Row], Ledger]
"""What is left of rows, and what the rest of them would have cost."""


class PrefixCache:
    """The latest prompts, in at most ``most_pages`` pages. To be used on the engine's event loop alone.

    ``room``: says whether so many more pages may be taken. ``hits`` of the ``asked`` tokens of prompts were there.
    """

    def __init__(self, engine: EngineCore, most_pages: int, room: Callable[[int], bool]) -> None:
        self._engine, self._most, self._room = engine, most_pages, room
        self._entries: OrderedDict[Entry, None] = OrderedDict()
        self._begun: dict[str, tuple[Beginnings, Beginnings]] = {}  # by owner: of all tokens, of those of a first block
        self._blocks: dict[int, tuple[int, int]] = {}  # of entries: how many entries show it, its pages
        self.pages = 0
        self.hits = self.asked = 0  # tokens

    def match(self, ids: Sequence[int], owner: str = "") -> Prefix:
        """The longest beginning of a prompt that the cache has of ``owner``'s; it is kept until ``release``."""
        best, length = self._longest(ids, owner, first=False)
        if best is not None and length == len(ids) != len(best.ids):
            length -= 1  # whose logits nobody kept
        if best is None or length < LEAST:
            return Prefix(None, 0, owner=owner)
        best.users += 1
        return Prefix(best, length, min(length, SHORT) if length == len(ids) else 0, owner)

    def _longest(self, ids: Sequence[int], owner: str, *, first: bool) -> tuple[Entry | None, int]:
        """The entry that has most of ``ids`` at its beginning, and how many; ``first``: in its first block."""
        return self._begun[owner][first].longest(ids) if owner in self._begun else (None, 0)

    def release(self, prefix: Prefix) -> None:
        """Say that the prompt which stood on it needs it no longer, so that its entry may go."""
        if prefix.entry is not None:
            prefix.entry.users -= 1
            prefix.entry = None

    async def encode(self, ids: Sequence[int], prefix: Prefix, *, going_on: bool = False) -> Encoded:
        """A prompt's view and the logits behind it; what is not there yet is encoded, and remembered.

        ``going_on``: the caller will write behind the prompt, in the view's own block if it has one, and then ``keep``.
        """
        self.asked += len(ids)
        room = len(ids) - prefix.length + prefix.again
        now = self.match(ids, prefix.owner)  # somebody who came at the same time may have begun meanwhile
        if now.length > prefix.length:
            prefix.entry, prefix.length, now.entry = now.entry, now.length, prefix.entry
        self.release(now)
        base, start, first = View(), 0, len(ids)
        if prefix.entry is not None:
            entry = prefix.entry
            try:
                logits = await asyncio.shield(entry.ready)
            except Exception:  # whoever encoded it failed or went away: do it oneself
                self.release(prefix)
                prefix.length = prefix.again = 0
                return await self.encode(ids, prefix, going_on=going_on)
            self._touch(entry)
            self.hits += prefix.length
            if prefix.length == len(ids):
                view = self._as_it_stood(entry.view, room) if going_on else entry.view
                return Encoded(view, logits, len(ids))
            base, start = entry.view.fork(prefix.length), prefix.length
            first = min(entry.first, start)
        block = self._engine.block("prompt")
        view = base.then(block)
        made = self._add(ids, view, first, prefix.owner)
        try:
            reply = await self._engine.scheduler.submit([Row(view, ids=list(ids[start:]))], [Cost(0)])
        except BaseException as error:
            self._fail(made, error)
            raise
        self._done(made, reply.output.logits[0].clone())
        going_on &= len(ids) - start < SHORT
        if not going_on:
            block.seal()
        return Encoded(view if going_on else made.view, made.ready.result(), start, reply.cost)

    def _as_it_stood(self, view: View, room: int) -> View:
        """A prompt's view with an open end, if it had one when it was new and ``room`` tokens suffice for it."""
        end = view.items[-1]
        if not isinstance(end, Span) or len(end) >= SHORT or len(end) > room:
            return view
        block = self._engine.block("prompt")
        self._engine.compact([end], block)
        return view.fork(len(view) - len(end)).then(block)

    def keep(self, ids: Sequence[int], view: View, *, whole: bool, owner: str = "") -> None:
        """The reply to a prompt stands in its view. ``whole``: remember both, for the next turn of the conversation.

        Programs are not given replies: those were computed token by token, behind spans that a program's prompt lacks.
        """
        own = view.own
        assert own is not None
        count, logits = len(view) - len(ids), own.logits
        own.seal()
        if whole and count and logits is not None:
            self._done(self._add([*ids, *own.ids[-count:]], view, 0, owner), logits.clone())
        else:
            self._count(view, 0)

    @asynccontextmanager
    async def known(self, rows: Sequence[Row], costs: Sequence[Cost], owner: str = "") -> AsyncIterator[Known]:
        """A run's rows without the known beginnings of its prompts, which stand in their blocks; what these cost.

        A row is a prompt if its view is an empty block alone: its tokens see nothing but those before them. Never all
        of it is known. The caller encodes the rest within the context, and then the prompts are remembered for others,
        if there is room. The cost is as if all had been encoded, but for the time: a budget ends where it would have
        without others' prompts.
        """
        found = [at for at, row in enumerate(rows) if _is_prompt(row)]
        if not found:
            yield rows, Ledger()
            return
        checked = self._engine.executor.check(rows, costs)
        self._engine.executor.admit(checked)  # nothing is put anywhere for rows that cannot be
        prompts = [(checked[at].own, checked[at].ids) for at in found]
        bases = [self._longest(ids[:-1], owner, first=True) for _, ids in prompts]
        # Only now: who waits, waits for prompts that were begun before any of its own, so never in a circle.
        made = [self._add(ids, View(self._engine.block("prompt")), len(ids), owner) for _, ids in prompts]
        self.asked += sum(len(entry.ids) for entry in made)
        rest, cost = list(rows), Ledger()
        try:
            for at, (block, ids), (entry, length) in zip(found, prompts, bases, strict=True):
                count = 0 if entry is None or length < LEAST else await self._copied(entry, length, block)
                rest[at] = Row(rows[at].view, ids=ids[count:])
                cost.add(self._cost(count, rows[at].count if len(rows) == 1 else 0))
            yield rest, cost
            for (block, ids), entry in zip(prompts, made, strict=True):
                copy = entry.view.blocks[0]
                if not self._room(copy.pages_needed(len(ids))):
                    self._fail(entry, "no room")
                    continue
                self._engine.compact([Span(block, 0, len(ids))], copy)
                assert block.logits is not None
                copy.seal()
                self._done(entry, block.logits.clone())
        except BaseException as error:
            for entry in made:
                if not entry.ready.done():
                    self._fail(entry, error)
            raise

    def _cost(self, known: int, lone: int) -> Ledger:
        """What encoding ``known`` tokens would have cost, of the ``lone`` of a row that is alone (0: it is not)."""
        chunk, size = self._engine.prefill_chunk, known * self._engine.pool.bytes_per_token
        ticks = -(-lone // chunk) - -(-(lone - known) // chunk) if lone else 0
        return Ledger(prefill=known, ticks=ticks, kv_read=size, kv_written=size)

    async def _copied(self, entry: Entry, length: int, block: Block) -> int:
        """Copy an entry's first ``length`` tokens to ``block`` once they are encoded; how many, 0 if that failed."""
        entry.users += 1
        try:
            await asyncio.shield(entry.ready)
        except Exception:  # whoever encoded it failed or went away
            return 0
        finally:
            entry.users -= 1
        self._touch(entry)
        self._engine.compact([Span(entry.view.blocks[0], 0, length)], block)
        self.hits += length
        return length

    def _add(self, ids: Sequence[int], view: View, first: int, owner: str) -> Entry:
        """A new entry, which its caller is about to encode and counts as a user of."""
        future: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        entry = Entry(np.asarray(ids, dtype=np.int64), view, future, first, owner, users=1)
        self._entries[entry] = None
        for begun in self._begun.setdefault(owner, (Beginnings(), Beginnings(first=True))):
            begun.add(entry)
        return entry

    def _done(self, entry: Entry, logits: Tensor) -> None:
        """Say that an entry is encoded: those who wait for it go on. What is written behind it is not of it."""
        entry.users -= 1
        entry.view = entry.view.fork(len(entry.ids))
        entry.ready.set_result(logits)
        if entry in self._entries:
            self._count(entry.view, 1)
        self.free_up(self.pages - self._most)

    def _fail(self, entry: Entry, why: BaseException | str) -> None:
        """Take back an entry whose encoding failed; those who wait for it get an error that says ``why``."""
        entry.users -= 1
        self._drop(entry)
        entry.ready.set_exception(RuntimeError(f"not encoded: {why!r}"))
        entry.ready.exception()  # nobody may be waiting

    def _touch(self, entry: Entry) -> None:
        if entry in self._entries:
            self._entries.move_to_end(entry)

    def _drop(self, entry: Entry) -> None:
        if entry in self._entries:
            del self._entries[entry]
            for begun in self._begun[entry.owner]:
                begun.remove(entry)
            if not begun:
                del self._begun[entry.owner]
            if entry.ready.done():
                self._count(entry.view, -1)

    def _count(self, view: View, by: int) -> None:
        """Count an entry's view in (``by`` 1) or out (-1). A block's pages count once, however many entries show it."""
        for block in view.blocks:
            shown, pages = self._blocks.pop(block.uid, (0, 0))
            now = len(block.table) if shown + by else 0
            self.pages += now - pages
            if shown + by:
                self._blocks[block.uid] = (shown + by, now)

    def free_up(self, pages: int) -> bool:
        """Drop unused entries, the longest unused first, until ``pages`` fewer are held; whether that was reached."""
        target = self.pages - pages
        if pages <= 0:
            return True
        for entry in list(self._entries):
            if self.pages <= target:
                break
            if not entry.users and entry.ready.done():
                self._drop(entry)
        return self.pages <= target


def _is_prompt(row: Row) -> bool:
    own = row.view.own
    return row.ids is not None and row.count > LEAST and own is not None and not len(own) and len(row.view.items) == 1
