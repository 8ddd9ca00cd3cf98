"""A tree's leaves: their answers and rewards, and another program that may go on behind each and answer for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from kvorum.engine.row import Cost, Row
from kvorum.harness.answers import Kind, extract
from kvorum.programs.tree.branch import Branch
from kvorum.programs.tree.grow import Growth
from kvorum.programs.tree.nodes import Tree
from kvorum.runs.nesting import inside
from kvorum.runs.program import Program
from kvorum.runs.run import Run
from kvorum.tasks.answers import normalised

Params = Mapping[str, Any]
"""A program's parameters, checked, and ``workers`` where they are given."""


async def go_on(g: Growth, program: Program, params: Params) -> None:
    """Let ``program`` work behind every leaf, behind as many at once as write at once, in the same ticks.

    It may have ``workers`` among its parameters. Leaves that the budget does not reach keep what they have.
    """
    leaves = [branch for branch in g.branches if branch.finish and branch.finish != "spent" and not branch.auxiliary]
    for start in range(0, len(leaves), g.at_once):
        group = leaves[start : start + g.at_once]
        if g.run.spent:
            return
        rows = [Row(branch.worker.view, ids=branch.worker.pending) for branch in group]  # a leaf's last token
        await g.run.forward(rows, [Cost(branch.worker.picked) for branch in group])
        ends = await asyncio.gather(*(_behind(g, branch, program, params) for branch in group), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end


async def _behind(g: Growth, branch: Branch, program: Program, params: Params) -> None:
    branch.worker.pending, branch.worker.picked = [], 0
    branch.answer = await inside(g.run, branch.worker.view, program, name=branch.worker.name, **params)


def reward(run: Run, grown: Tree, kind: Kind) -> str | None:
    """Set the leaves' answers and rewards; returns the answer of most, the first of them where there is a tie."""
    answers: dict[int, str] = {}
    for leaf in grown.leaves:
        text = run.read([token for at in grown.path(leaf)[1:] for token in grown.nodes[at].ids])
        found = grown.nodes[leaf].answer or (text.strip() if kind.name == "text" else extract(text, kind))
        grown.nodes[leaf].answer = found
        if found:
            answers[leaf] = found
    counts = Counter(normalised(found) for found in answers.values())
    most = max(counts.values(), default=0)
    best = next((found for found in answers.values() if counts[normalised(found)] == most), None)
    verify = run.task.verify
    for leaf in grown.leaves:
        found = grown.nodes[leaf].answer
        same = best is not None and found is not None and normalised(found) == normalised(best)
        grown.nodes[leaf].reward = float(same) if verify is None else float(verify(found))
    return best
