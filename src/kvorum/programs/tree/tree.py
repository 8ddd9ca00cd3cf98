"""Rollouts that share prefixes: Tree-GRPO, TreeRL, TreePO, SPO, ARPO and VinePPO on one cache.

The answer is the leaves' majority; the tree, with exact ids, log-probabilities and advantages, is what a trainer wants:
it is the result's ``product``, ``export`` writes it, ``grow`` returns it to other programs. ``docs/programs/tree.md``
has settings and differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from kvorum.errors import BadRequest
from kvorum.harness.answers import Answer, kind_of
from kvorum.harness.tools.tool import Tool, tool
from kvorum.jsontypes import Json
from kvorum.programs.tree import methods
from kvorum.programs.tree.branch import RolloutSettings
from kvorum.programs.tree.export import ExportForm, check_file, file_of, save
from kvorum.programs.tree.grow import Growth
from kvorum.programs.tree.nodes import ESTIMATORS, Tree, assemble
from kvorum.runs.annotations import Help, NonNegativeFloat, NonNegativeInt, PositiveInt
from kvorum.runs.parameters import Value
from kvorum.runs.program import Program, find, program
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent

SCHEME_KEYS = ("trees", "picks", "rounds", "copies", "select", "replacement", "segment", "branching", "width")


def belong_to_the_method(workers: int, *, method: str, **params: Value) -> None:
    """Raises BadRequest where a setting is given that the method does not have, or no way to branch."""
    if params["auxiliary"] and params["form"] != "rows":
        raise BadRequest("auxiliary=True is of form='rows': the other forms say of every node what it is.")
    settle(method, {name: params[name] for name in SCHEME_KEYS})


@program(
    "tree", "rollouts forked from shared prefixes, with their advantages", workers=8, together=belong_to_the_method
)
async def tree(
    run: Run,
    *,
    method: Annotated[str, Help(choices=tuple(methods.PRESETS))] = "tree-grpo",
    trees: PositiveInt | None = None,
    picks: PositiveInt | None = None,
    rounds: NonNegativeInt | None = None,
    copies: PositiveInt | None = None,
    select: Literal["uniform", "entropy"] | None = None,
    replacement: bool | None = None,
    segment: PositiveInt | None = None,
    branching: Annotated[int | Sequence[int] | None, Help(low=1)] = None,
    width: PositiveInt | None = None,
    tokens: PositiveInt = 512,
    step: str = "\n\n",
    tools: Annotated[Sequence[Callable[..., Json] | Tool], Help(local=True)] = (),
    turns: NonNegativeInt = 3,
    tool_seconds: NonNegativeFloat = 20.0,
    tool_chars: NonNegativeInt = 2000,
    leaf: Annotated[str, Help(program=True)] = "",
    leaf_params: Annotated[Mapping[str, Json] | None, Help(params_of="leaf")] = None,
    advantage: Annotated[str | None, Help(choices=ESTIMATORS)] = None,
    export: Annotated[str | None, Help(local=True)] = None,
    form: ExportForm = "rows",
    auxiliary: bool = False,
    answer: Answer = "boxed",
    script: Annotated[str | None, Help(local=True)] = None,
) -> str | None:
    """Grow a tree of rollouts and answer what most of its leaves answer; the first such leaf breaks a tie.

    A leaf's reward is the task's verifier's, or 1 for the majority's answer where there is none. The number of workers
    says how many branches are decoded at once, and changes no token.

    Args:
        method: Whose scheme: it sets what follows, to width, to its published values.
        trees: M: chains, or roots, from the prompt.
        picks: N: points picked per tree and round.
        rounds: L: rounds of forking.
        copies: T: forks per point, VinePPO's K.
        select: Points are picked alike, or by the entropy of the next token.
        replacement: Whether a point can be picked again.
        segment: Tokens between forks.
        branching: Ways at each fork, or a list of ways, one per level.
        width: The most leaves.
        tokens: The most tokens of a leaf.
        step: The text that ends a step, where the method has steps; a tool's result does so too.
        tools: Typed functions that chains call by <name>argument</name>.
        turns: The most calls of tools per leaf.
        tool_seconds: The most seconds of a call.
        tool_chars: The most characters of a result.
        leaf: The program that goes on behind every leaf and gives its answer; by default none.
        leaf_params: The parameters of that program, and its workers.
        advantage: The estimator of advantages; by default the method's.
        export: The file to write the tree to; behind a leaf of another tree, the file's name with the leaf's in it.
        form: What is written: a line per leaf, a line per edge, or tensors with a mask (safetensors).
        auxiliary: Lines per leaf also of leaves that are there for the value of a step alone.
        script: What every chain writes in place of the model, from where it was forked on.
    """
    check_export(export, leaf, leaf_params or {})
    bench = [item if isinstance(item, Tool) else tool(item) for item in tools]
    settings = RolloutSettings(tokens, step, bench, turns, tool_seconds, tool_chars, script)
    values = (trees, picks, rounds, copies, select, replacement, segment, branching, width)
    plan = settle(method, dict(zip(SCHEME_KEYS, values, strict=True)))
    estimator = advantage or (method if method in ESTIMATORS else "grpo")
    kind = kind_of(run, answer)
    asked = f"Think step by step. {_tools(settings)}{kind.request}".rstrip()
    ids = run.chat(("user", f"{run.task.prompt}\n\n{asked}"))
    behind = find(leaf) if leaf else None
    grown = await grow(run, ids, plan, settings, behind, leaf_params or {})
    best = grown.reward(run, kind)
    grown.estimate(estimator)
    run.product = grown
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
        save(grown, file_of(export, run.scope), form, auxiliary=auxiliary)
    return best


async def grow(
    run: Run,
    prompt: Sequence[int],
    plan: methods.Scheme,
    settings: RolloutSettings,
    behind: Program | None = None,
    params: Mapping[str, Json] = MappingProxyType({}),
) -> Tree:
    """The tree that ``plan`` (of ``settle``) makes from ``prompt`` ids, without rewards; cut short by the budget.

    ``behind``: a program that goes on behind every leaf, with ``params``, and gives its answer.
    """
    g = Growth(run, settings)
    keys = {name: value for name, value in plan.items() if name != "unit"}
    try:
        await g.begin(prompt)
        await methods.GROWERS[plan["unit"]](g, **keys)
        if behind is not None:
            await g.go_on(behind, params)
    except Spent:
        pass  # between two ticks, while a tool's result was to be encoded
    return assemble(g)


def check_export(export: str | None, leaf: str, leaf_params: Mapping[str, Any]) -> None:
    """Raises BadRequest where this tree, or one behind its leaves, could not be written when all is done."""
    if export is not None:
        check_file(Path(export))
    if leaf == tree.name:
        check_export(leaf_params.get("export"), leaf_params.get("leaf", ""), leaf_params.get("leaf_params") or {})


def settle(method: str, given: Mapping[str, Value]) -> methods.Scheme:
    """The published settings of a method with what is given in their place. Raises BadRequest for what it has not."""
    plan = dict(methods.PRESETS[method])
    for name, value in given.items():
        if value is not None and name not in plan:
            raise BadRequest(f"{method} has no {name}; it has: {', '.join(key for key in plan if key != 'unit')}.")
        if value is not None:
            plan[name] = value
    if plan.get("branching") in ([], ()):
        raise BadRequest("branching=[] has no ways at any fork; give a number, or a number for each level.")
    return plan


def expected_cost(trees: int, picks: int, rounds: int, steps: int | None = None) -> float:
    """Cost of Tree-GRPO's sampler in chains. ``steps`` None: the published formula, M (1 + L N / 2).

    With ``steps`` D per chain: what the released sampler costs in the first round, where an expansion starts from the
    prompt or the end of one of the D - 1 other steps, all alike, and so costs (D + 1) / 2D of a chain.
    """
    share = 0.5 if steps is None else (steps + 1) / (2 * steps)
    return trees * (1 + rounds * picks * share)


def _tools(settings: RolloutSettings) -> str:
    if not settings.tools:
        return ""
    listed = "; ".join(f"<{item.name}>...</{item.name}>: {item.description}" for item in settings.tools)
    return f"You may use tools, whose results are filled in for you: {listed}. "
