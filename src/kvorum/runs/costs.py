"""What keys and values cost that no tick of the run computes: copied, imitated, or encoded before by another run."""

from __future__ import annotations

from kvorum.engine.budget import Ledger
from kvorum.engine.engine import EngineCore


def copy_cost(engine: EngineCore, tokens: int) -> Ledger:
    """What it costs to write the keys and values of ``tokens`` tokens to another block, moved or imitated."""
    return Ledger(kv_written=tokens * engine.pool.bytes_per_token)


def shared_prompt_cost(engine: EngineCore, known: int, lone: int) -> Ledger:
    """What ``known`` tokens of a prompt cost that were taken from another run's.

    Counted as if they had been encoded, but for the time: a budget ends where it would have without others' prompts.
    ``lone``: the tokens of a row that is alone, which takes several ticks if it is long; 0: it is not.
    """
    chunk, size = engine.prefill_chunk, known * engine.pool.bytes_per_token
    ticks = -(-lone // chunk) - -(-(lone - known) // chunk) if lone else 0
    return Ledger(prefill=known, ticks=ticks, kv_read=size, kv_written=size)
