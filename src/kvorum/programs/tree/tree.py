"""Rollouts that share prefixes: Tree-GRPO, TreeRL, TreePO, SPO, ARPO and VinePPO on one cache.

The answer is the leaves' majority; the tree, with exact ids, log-probabilities and advantages, is what a trainer wants:
``export`` writes it, ``grow`` returns it to other programs. ``docs/programs/tree.md`` has settings and differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal

from kvorum.errors import BadRequest
from kvorum.harness.answers import KINDS, Answer
from kvorum.harness.tools import tool
from kvorum.jsontypes import Json
from kvorum.programs.tree import leaves, methods
from kvorum.programs.tree.branch import Settings
from kvorum.programs.tree.export import Form, save
from kvorum.programs.tree.grow import Growth
from kvorum.programs.tree.nodes import ESTIMATORS, Tree, assemble
from kvorum.runs.annotations import Help
from kvorum.runs.parameters import Value
from kvorum.runs.program import Program, program
from kvorum.runs.run import Run
from kvorum.runs.state import Spent

KEYS = ("trees", "picks", "rounds", "copies", "select", "replacement", "segment", "branching", "width")


@program("tree", "rollouts forked from shared prefixes, with their advantages", workers=8)
async def tree(
    run: Run,
    *,
    method: Annotated[
        str,
        Help("Whose scheme: it sets what follows, to width, to its published values.", choices=tuple(methods.PRESETS)),
    ] = "tree-grpo",
    trees: Annotated[int | None, Help("M: chains, or roots, from the prompt.", low=1)] = None,
    picks: Annotated[int | None, Help("N: points picked per tree and round.", low=1)] = None,
    rounds: Annotated[int | None, Help("L: rounds of forking.", low=0)] = None,
    copies: Annotated[int | None, Help("T: forks per point, VinePPO's K.", low=1)] = None,
    select: Annotated[
        Literal["uniform", "entropy"] | None, Help("Points are picked alike, or by the entropy of the next token.")
    ] = None,
    replacement: Annotated[bool | None, Help("Whether a point can be picked again.")] = None,
    segment: Annotated[int | None, Help("Tokens between forks.", low=1)] = None,
    branching: Annotated[
        int | Sequence[int] | None, Help("Ways at each fork, or a list of ways, one per level.", low=1)
    ] = None,
    width: Annotated[int | None, Help("The most leaves.", low=1)] = None,
    tokens: Annotated[int, Help("The most tokens of a leaf.", low=1)] = 512,
    step: Annotated[str, Help("The text that ends a step; a tool's result does so too.")] = "\n\n",
    tools: Annotated[
        Sequence[Callable[..., Json]], Help("Typed functions that chains call by <name>argument</name>.", local=True)
    ] = (),
    turns: Annotated[int, Help("The most calls of tools per leaf.", low=0)] = 3,
    tool_seconds: Annotated[float, Help("The most seconds of a call.", low=0)] = 20.0,
    tool_chars: Annotated[int, Help("The most characters of a result.", low=0)] = 2000,
    leaf: Annotated[
        str, Help("The program that goes on behind every leaf and gives its answer; by default none.", program=True)
    ] = "",
    leaf_params: Annotated[
        Mapping[str, Json] | None, Help("The parameters of that program, and its workers.", params_of="leaf")
    ] = None,
    advantage: Annotated[
        str | None, Help("The estimator of advantages; by default the method's.", choices=ESTIMATORS)
    ] = None,
    export: Annotated[str | None, Help("The file to write the tree to.", local=True)] = None,
    form: Annotated[
        Form, Help("What is written: a line per leaf, a line per edge, or tensors with a mask (safetensors).")
    ] = "rows",
    answer: Answer = "boxed",
    script: Annotated[
        str | None, Help("What every chain writes in place of the model, from where it was forked on.", local=True)
    ] = None,
) -> str | None:
    """Grow a tree of rollouts and answer what most of its leaves answer; the first such leaf breaks a tie.

    A leaf's reward is the task's verifier's, or 1 for the majority's answer where there is none. The number of workers
    says how many branches are decoded at once, and changes no token.
    """
    settings = Settings(tokens, step, [tool(item) for item in tools], turns, tool_seconds, tool_chars, script)
    values = (trees, picks, rounds, copies, select, replacement, segment, branching, width)
    plan = settle(method, dict(zip(KEYS, values, strict=True)))
    estimator = advantage or (method if method in ESTIMATORS else "grpo")
    kind = KINDS[answer]
    ids = run.chat(("user", f"{run.task.prompt}\n\nThink step by step. {_tools(settings)}{kind.request}"))
    behind = tree.inner(leaf) if leaf else None
    grown = await grow(run, ids, plan, settings, behind, leaf_params or {})
    best = leaves.reward(run, grown, kind)
    grown.estimate(estimator)
    ends = [grown.nodes[leaf] for leaf in grown.leaves]
    run.note(
        "tree",
        method=method,
        leaves=len(ends),
        nodes=len(grown.nodes) - 1,
        sampled=grown.sampled,
        unshared=grown.unshared,
        parents=grown.parents,
        lengths=[len(node.ids) for node in grown.nodes],
        rewards={str(leaf): grown.nodes[leaf].reward for leaf in grown.leaves},
        finishes=[node.finish for node in ends],
        estimator=estimator,
        advantages=[node.advantage for node in grown.nodes],
    )
    if export is not None and ends:
        save(grown, export, form)
    return best


async def grow(
    run: Run,
    prompt: Sequence[int],
    plan: methods.Scheme,
    settings: Settings,
    behind: Program | None = None,
    params: leaves.Params = MappingProxyType({}),
) -> Tree:
    """The tree that ``plan`` (of ``settle``) makes from ``prompt`` ids, without rewards; cut short by the budget.

    ``behind``: a program that goes on behind every leaf, with ``params``, and gives its answer.
    """
    g = Growth(run, settings)
    keys = {name: value for name, value in plan.items() if name != "unit"}
    try:
        await g.begin(prompt)
        if plan["unit"] in ("step", "token"):
            await methods.expand(g, unit=plan["unit"], **keys)
        elif plan["unit"] == "segment":
            await methods.segments(g, **keys)
        elif plan["unit"] == "tool":
            await methods.after_tools(g, **keys)
        else:
            await methods.vine(g, **keys)
        if behind is not None:
            await leaves.go_on(g, behind, params)
    except Spent:
        pass  # between two ticks, while a tool's result was to be encoded
    return assemble(g)


def settle(method: str, given: Mapping[str, Value]) -> methods.Scheme:
    """The published settings of a method with what is given in their place. Raises BadRequest for what it has not."""
    plan = dict(methods.PRESETS[method])
    for name, value in given.items():
        if value is not None and name not in plan:
            raise BadRequest(f"{method} has no {name}; it has: {', '.join(key for key in plan if key != 'unit')}.")
        if value is not None:
            plan[name] = value
    return plan


def expected_cost(trees: int, picks: int, rounds: int, steps: int | None = None) -> float:
    """Cost of Tree-GRPO's sampler in chains. ``steps`` None: the published formula, M (1 + L N / 2).

    With ``steps`` D per chain: what the released sampler costs in the first round, where an expansion starts from the
    prompt or the end of one of the D - 1 other steps, all alike, and so costs (D + 1) / 2D of a chain.
    """
    share = 0.5 if steps is None else (steps + 1) / (2 * steps)
    return trees * (1 + rounds * picks * share)


def _tools(settings: Settings) -> str:
    if not settings.tools:
        return ""
    listed = "; ".join(f"<{item.name}>...</{item.name}>: {item.summary}" for item in settings.tools)
    return f"You may use tools, whose results are filled in for you: {listed}. "
