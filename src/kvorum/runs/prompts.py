"""Prompts that other runs have encoded: a run takes their keys and values from there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from kvorum.engine.engine import EngineCore
from kvorum.engine.executor import TickResult
from kvorum.engine.owners import Owners
from kvorum.engine.row import CheckedRow, Cost, Row
from kvorum.kv import Block
from kvorum.runs.costs import shared_prompt_cost
from kvorum.sampling.sampling import Draw

LEAST = 16
"""Tokens in common below which sharing is not worth it."""

Prompt = tuple[Block, Sequence[int]]
"""An empty block and the ids that are to stand in it."""


class Prompts(Protocol):
    """Prompts that other runs have encoded, bit for bit as this one would; a server's, usually."""

    def filling(self, prompts: Sequence[Prompt]) -> AbstractAsyncContextManager[list[int]]:
        """Put a known beginning of each prompt, never all of it, into its block; how many tokens of each.

        The rest is encoded within the context.
        """


async def submit(
    engine: EngineCore,
    prompts: Prompts | None,
    rows: Sequence[Row],
    costs: Sequence[Cost],
    *,
    hidden: bool = False,
    owners: Owners | None = None,
    draws: Sequence[Draw | None] = (),
) -> TickResult:
    """The scheduler's ``submit``, but what others have encoded of prompts among the rows is taken from there.

    A row is a prompt if its view is an empty block alone: its tokens see nothing but those before them. Rows whose
    attention is tapped are computed whole.
    """
    checked = engine.executor.check(rows, costs, owners=owners, draws=draws)
    found = [at for at, row in enumerate(checked) if _is_prompt(row)]
    if prompts is None or not found:
        return await engine.scheduler.submit_checked(checked, hidden)
    engine.executor.admit(checked)  # nothing is put anywhere for rows that cannot be
    async with prompts.filling([(checked[at].own, checked[at].ids) for at in found]) as known:
        for at, count in zip(found, known, strict=True):
            row = checked[at]
            checked[at] = row.part(count, row.count, row.spent.decoded)
        result = await engine.scheduler.submit_checked(checked, hidden)
    for at, count in zip(found, known, strict=True):
        result.cost.add(shared_prompt_cost(engine, count, rows[at].count if len(rows) == 1 else 0))
    return result


def _is_prompt(row: CheckedRow) -> bool:
    alone = len(row.view.items) == 1 and not len(row.own)
    return alone and row.count > LEAST and row.embeds is None and row.owners is None
