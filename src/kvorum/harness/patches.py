"""Texts in a new place, of which a part is read again there: ``Engine.patch`` as a run does it, on its budget.

A text that was encoded behind one beginning and stands behind another carries the old one. What is read again has the
keys and values of a fresh forward in the new place; the rest stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvorum.engine.rereading import patch_rows
from kvorum.engine.row import Cost
from kvorum.kv import Block, View
from kvorum.runs.run import Run


async def patch(run: Run, block: Block, before: View, tokens: Iterable[int]) -> Block:
    """A sealed copy of ``block`` in which ``tokens`` are read again behind ``before``, in one tick where they fit one.

    Raises:
        SpanOutOfRange: a token that the block has not. BadRequest: a latent step. Spent: the budget is used up.
    """
    rows, spans = patch_rows(block, before, tokens, run.block)
    if sum(row.count for row in rows) <= run.engine.prefill_chunk:
        if rows:
            await run.forward(rows, [Cost(0)] * len(rows))
    else:
        for row in rows:
            await run.forward([row], [Cost(0)])
    made = run.block(f"patched {block.name}")
    run.copy(spans, made)
    return made.seal()
