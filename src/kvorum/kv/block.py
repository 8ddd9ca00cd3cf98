"""Blocks: append-only runs of tokens, each stored once.

Covers token ids and the pages of a block. The keys and values themselves are in the cache; a key is stored rotated to
its index in the block.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from kvorum.errors import ForeignBlock, SealedBlock
from kvorum.kv.ahead import Ahead, Shown
from kvorum.kv.page_table import PageTable
from kvorum.kv.pool import PagePool

LATENT = -1
"""The token id that stands for a row of embeddings (a latent step), which has no id."""

_uids = itertools.count()


class Block:
    """An append-only run of tokens with one writer. Made by ``Engine.block``.

    ``name`` is for people, ``uid`` tells blocks of one process apart, and a ``sealed`` block takes no more tokens.
    ``table`` knows where in the cache its tokens lie. Its pages return to the pool when the last handle and the last
    view that hold it are gone.
    """

    def __init__(self, pool: PagePool, name: str = "") -> None:
        self.uid = next(_uids)
        self.name = name or f"block{self.uid}"
        self.pool = pool
        self.sealed = False
        self.table = PageTable(pool)
        self._ids: list[int] = []
        self._logits: Tensor | Callable[[], Tensor] | None = None
        self._ahead: Ahead | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def __bool__(self) -> bool:
        return True  # an empty block is still a block

    def __repr__(self) -> str:
        return f"Block({self.name!r}, {len(self)} tokens{', sealed' if self.sealed else ''})"

    @property
    def ids(self) -> list[int]:
        """The token ids, as a new list. A latent step has the id ``LATENT`` (-1)."""
        return list(self._ids)

    @property
    def logits(self) -> Tensor | None:
        """Logits ``[vocab]`` after the last token, fetched when they are read; None where nothing was computed yet.

        Kept while the block is open.
        """
        if callable(self._logits):
            self._logits = self._logits()
        return self._logits

    def set_logits(self, fetch: Callable[[], Tensor] | None) -> None:
        """Say how the logits after the last token are fetched. For the engine, after each tick."""
        self._logits = fetch

    def seal(self) -> Block:
        """Close the block for good: any later write is a ``SealedBlock`` error, and what it reserved is free again."""
        self.sealed = True
        self._logits = None
        self.drop_ahead()
        self.table.shrink(len(self))
        return self

    def pages_needed(self, tokens: int) -> int:
        """How many more pages ``tokens`` more tokens take."""
        return self.table.needed(len(self) + tokens)

    def append(self, ids: Sequence[int]) -> None:
        """Take room for ``ids`` and record them; their keys and values are written by the tick.

        Raises:
            SealedBlock: the block was sealed.
            OutOfPages: no room; the block is as it was.
        """
        if self.sealed:
            raise SealedBlock(f"{self.name} is sealed: write to a fresh block behind it instead.")
        self.drop_ahead()
        self.reserve(len(ids))
        self._ids.extend(ids)

    def reserve(self, tokens: int) -> None:
        """Take the pages for ``tokens`` more tokens now, so that nobody else can have them before they are written.

        Raises:
            OutOfPages: no room; the block is as it was.
        """
        if self.table.needed(len(self) + tokens):
            self.drop_ahead()  # whose tokens may lie on pages that are lent
            self.table.grow(len(self) + tokens)

    def truncate(self, length: int) -> None:
        """Forget the tokens from ``length`` on: the undo of a tick that failed. Pages are kept for the next try."""
        if length < len(self):
            self.drop_ahead()
        del self._ids[length:]

    def tail(self, start: int, end: int | None = None) -> list[int]:
        """The token ids from index ``start`` to ``end``, without those before."""
        return self._ids[start:end]

    # -- tokens ahead of the end -------------------------------------------------------------------------------

    @property
    def ahead(self) -> Ahead | None:
        """What was computed ahead of the block's end, if anything."""
        return self._ahead

    def suppose(self, ids: Sequence[int]) -> tuple[int, list[int]]:
        """Let ``ids`` stand at the end while a tick computes them; ``unsuppose`` must follow, whatever happens.

        Returns how many have room, and the pages that the pool lent for them.
        """
        loan = self.table.borrow(len(self) + len(ids)) if ids else []
        count = min(len(ids), self.table.capacity - len(self))
        self._ids.extend(ids[:count])
        return count, loan

    def unsuppose(self, count: int, lent: int) -> None:
        """Take the last ``count`` tokens and ``lent`` pages out of the block again; the pages are lent on."""
        del self._ids[len(self._ids) - count :]
        self.table.give_up(lent)

    def set_ahead(self, ahead: Ahead) -> None:
        """Say that these tokens were computed ahead of the end."""
        self.drop_ahead()
        self._ahead = ahead

    def has_ahead(self, token: int, shown: Shown) -> bool:
        """Whether ``token`` was computed ahead of the end, behind what is ``shown`` now; if not, nothing was."""
        ahead = self._ahead
        if ahead is None:
            return False
        there = ahead.length + ahead.at == len(self) and ahead.ids[ahead.at] == token and ahead.shown == shown
        if there and (ahead.loan or not self.table.needed(len(self) + 1)):
            return True
        self.drop_ahead()
        return False

    def step(self) -> Tensor:
        """Take over the first token ahead of the end. Returns the logits ``[vocab]`` behind it."""
        ahead = self._ahead
        assert ahead is not None
        if self.table.needed(len(self) + 1):
            self.table.adopt(ahead.loan)
        self._ids.append(ahead.ids[ahead.at])
        ahead.at += 1
        if not ahead.left:
            self.drop_ahead()
        return ahead.logits[ahead.at - 1]

    def drop_ahead(self) -> None:
        """Forget what was computed ahead; pages that were lent for it are the pool's."""
        if self._ahead is not None:
            self.pool.give(self._ahead.loan)
            self._ahead = None


def check_pool(block: Block, pool: PagePool, where: str = "") -> None:
    """Raises ForeignBlock for a block of another engine than the pool's."""
    if block.pool is not pool:
        raise ForeignBlock(f"{where}{block.name} belongs to another engine; save it there and load it here.")


@contextmanager
def unchanged_on_error(blocks: Sequence[Block]) -> Iterator[None]:
    """Within the context blocks may grow; whatever breaks it off leaves their lengths and logits as they were.

    The one place that takes back what failed. An interrupt and a cancelled coroutine count as failures too.
    """
    before = [(block, len(block), block._logits) for block in blocks]
    try:
        yield
    except BaseException:
        for block, length, logits in before:
            block.truncate(length)
            block._logits = logits
        raise
