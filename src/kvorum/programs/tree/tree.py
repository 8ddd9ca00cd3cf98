"""Rollouts that share prefixes: Tree-GRPO, TreeRL, TreePO, SPO, ARPO and VinePPO on one cache.

The answer is the leaves' majority; the tree, with exact ids, log-probabilities and advantages, is what a trainer wants:
``export`` writes it, ``grow`` returns it to other programs. ``docs/programs/tree.md`` has settings and differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.answers import kind_of
from kvorum.harness.tools import tool
from kvorum.jsontypes import Json
from kvorum.programs.tree import leaves, methods
from kvorum.programs.tree.branch import Settings
from kvorum.programs.tree.export import FORMS, save
from kvorum.programs.tree.grow import Growth
from kvorum.programs.tree.nodes import ESTIMATORS, Tree, assemble
from kvorum.runs.parameters import Help
from kvorum.runs.run import Program, Run, Spent, program

KEYS = ("trees", "picks", "rounds", "copies", "select", "replacement", "segment", "branching", "width")


@program("tree", "rollouts forked from shared prefixes, with their advantages", workers=8)
async def tree(
    run: Run,
    *,
    method: str = "tree-grpo",
    trees: int | None = None,
    picks: int | None = None,
    rounds: int | None = None,
    copies: int | None = None,
    select: str | None = None,
    replacement: bool | None = None,
    segment: int | None = None,
    branching: int | Sequence[int] | None = None,
    width: int | None = None,
    tokens: int = 512,
    step: str = "\n\n",
    tools: Annotated[Sequence[Callable[..., Any]], Help("Functions that the chains may call.", local=True)] = (),
    turns: int = 3,
    tool_seconds: float = 20.0,
    tool_chars: int = 2000,
    leaf: Annotated[str, Help("The program that goes on behind every leaf and gives its answer.", program=True)] = "",
    leaf_params: Annotated[
        Mapping[str, Json] | None, Help("The parameters of that program, workers among them.", params_of="leaf")
    ] = None,
    advantage: str | None = None,
    export: Annotated[str | None, Help("The file to write the tree to.", local=True)] = None,
    form: str = "rows",
    answer: str = "boxed",
    script: Annotated[
        str | None, Help("What every chain writes in place of the model, from where it was forked on.", local=True)
    ] = None,
) -> str | None:
    """Grow a tree of rollouts and answer what most of its leaves answer; the first such leaf breaks a tie.

    Args:
        method: whose scheme; it sets what follows, from ``trees`` to ``width``, to the published values unless given.
        trees: M, chains (or roots) from the prompt. picks: N, points per tree and round. rounds: L. copies: T, forks
            per point (VinePPO's K). select: points "uniform"ly or by "entropy". replacement: draw points with it.
        segment: tokens between forks. branching: ways at each, or a list of ways per level. width: leaves at most.
        tokens: of a leaf at most. step: what ends a step; a tool result does so too.
        tools: typed callables, called by ``<name>argument</name>``, at most ``turns`` times per leaf, within
            ``tool_seconds`` each; results are cut at ``tool_chars``.
        leaf: the name of a program that goes on behind every leaf and gives its answer ("": the leaf's text does).
            leaf_params: its parameters, ``workers`` among them; from a command line, as JSON.
        advantage: the estimator, by default the method's. export: a file to write the tree to, in ``form`` "rows"
            (per leaf, JSON lines), "episodes" (per edge, JSON lines) or "packed" (safetensors, with mask).
        answer: the kind of answer. script: what every chain writes instead of the model, from where it was forked on.

    A leaf's reward is the task's verifier's, or 1 for the majority's answer where there is none. The number of workers
    says how many branches are decoded at once, and changes no token.
    """
    settings = Settings(tokens, step, [tool(item) for item in tools], turns, tool_seconds, tool_chars, script)
    values = (trees, picks, rounds, copies, select, replacement, segment, branching, width)
    plan = settle(method, dict(zip(KEYS, values, strict=True)))
    if form not in FORMS:
        raise UnknownName(f"There is no form {form!r}; there are: {', '.join(FORMS)}.")
    estimator = advantage or (method if method in ESTIMATORS else "grpo")
    if estimator not in ESTIMATORS:
        raise UnknownName(f"There is no advantage {estimator!r}; there are: {', '.join(ESTIMATORS)}.")
    kind = kind_of(answer)
    ids = run.chat(("user", f"{run.task.prompt}\n\nThink step by step. {_tools(settings)}{kind.request}"))
    behind = tree.inner(leaf) if leaf else None
    grown = await grow(run, ids, plan, settings, behind, leaf_params or {})
    best = leaves.reward(run, grown, kind)
    grown.estimate(estimator)
    ends = [grown.nodes[leaf] for leaf in grown.leaves]
    run.note(
        "tree", method=method, leaves=len(ends), nodes=len(grown.nodes) - 1, sampled=grown.sampled,
        unshared=grown.unshared, parents=grown.parents, lengths=[len(node.ids) for node in grown.nodes],
        rewards={str(leaf): grown.nodes[leaf].reward for leaf in grown.leaves}, finishes=[n.finish for n in ends],
        estimator=estimator, advantages=[node.advantage for node in grown.nodes],
    )  # fmt: skip
    if export is not None and ends:
        save(grown, export, form)
    return best


async def grow(
    run: Run,
    prompt: Sequence[int],
    plan: dict[str, Any],
    settings: Settings,
    behind: Program | None = None,
    params: Mapping[str, Any] = MappingProxyType({}),
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


def settle(method: str, given: dict[str, Any]) -> dict[str, Any]:
    """The published settings of a method with what is given in their place. Raises UnknownName, BadRequest."""
    if method not in methods.PRESETS:
        raise UnknownName(f"There is no method {method!r}; there are: {', '.join(methods.PRESETS)}.")
    plan = dict(methods.PRESETS[method])
    for name, value in given.items():
        if value is None:
            continue
        if name not in plan:
            raise BadRequest(f"{method} has no {name}; it has: {', '.join(key for key in plan if key != 'unit')}.")
        plan[name] = value
    numbers = [plan.get(name) for name in ("trees", "picks", "copies", "segment", "width")]
    ways = plan.get("branching", 1)
    numbers += [ways] if isinstance(ways, int) else list(ways)
    if any(number is not None and type(number) is not int for number in numbers):
        raise BadRequest(f"{method}'s counts and ways of branching must be whole numbers.")
    if any(number is not None and number < 1 for number in numbers) or plan.get("rounds", 0) < 0:
        raise BadRequest("A tree's counts must be at least 1 (rounds at least 0).")
    if plan.get("select", "uniform") not in ("uniform", "entropy"):
        raise UnknownName(f"There is no selection {plan['select']!r}; there are: uniform, entropy.")
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
