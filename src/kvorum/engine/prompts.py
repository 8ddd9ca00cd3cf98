"""Prompts that were encoded before, in this run's place."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from kvorum.engine.budget import Ledger
from kvorum.kv import Block

if TYPE_CHECKING:
    from kvorum.engine.engine import Engine


class Prompts(Protocol):
    """Prompts that other runs have encoded, bit for bit as this one would; a server's, usually."""

    def filling(self, block: Block, ids: Sequence[int]) -> AbstractAsyncContextManager[int]:
        """Put a known beginning of ``ids``, never all of it, into the empty ``block``; how many tokens.

        The rest is encoded within the context.
        """
        ...


def copied(engine: Engine, known: int, count: int) -> Ledger:
    """What ``known`` of a prompt's ``count`` tokens cost that were copied.

    Counted as if they had been encoded, but for the time: a budget ends where it would have without others' prompts.
    """
    chunk, moved = engine.prefill_chunk, known * engine.pool.bytes_per_token
    ticks = -(-count // chunk) - -(-(count - known) // chunk)
    return Ledger(prefill=known, ticks=ticks, kv_read=moved, kv_written=moved)
