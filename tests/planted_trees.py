"""Trees of rollouts that are grown without a task, by every method."""

from __future__ import annotations

from typing import Any

from kvorum import Budget, Engine, Run, Sampling, program
from kvorum.programs.tree.branch import RolloutSettings
from kvorum.programs.tree.nodes import Tree
from kvorum.programs.tree.tree import grow, settle

STEPS = "ab\n\ncd\n\nef\n\ngh"  # four steps of equal cost, but for the last

WARM = Sampling(temperature=1.0)


def planted(
    engine: Engine, method: str, *, seed: int = 0, lanes: int = 4, tokens: int = 14, **given: Any
) -> tuple[Tree, Any]:
    """The tree that ``grow`` makes, and the run's result."""
    found: list[Tree] = []
    settings = RolloutSettings(tokens, given.pop("step", "a"), given.pop("tools", []), script=given.pop("script", None))
    budget = given.pop("budget", Budget(ticks=9999))

    @program("planted", "grows a tree")
    async def planted_(run: Run) -> str:
        found.append(await grow(run, run.encode("What is it?"), settle(method, given), settings))
        return "done"

    result = engine.run(planted_, "p", workers=lanes, budget=budget, sampling=WARM, seed=seed)
    return found[0], result
