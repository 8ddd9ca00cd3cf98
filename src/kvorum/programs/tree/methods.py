"""Where and when rollouts branch: the sampling schemes of Tree-GRPO, TreeRL, TreePO, SPO, ARPO and VinePPO."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from kvorum.programs.tree.branch import Branch, repeats
from kvorum.programs.tree.grow import Growth

Scheme = dict[str, Any]
"""A method's settings: its ``unit``, and what the function below that grows it takes."""

PRESETS: dict[str, Scheme] = {
    "tree-grpo": {
        "unit": "step",
        "trees": 2,
        "picks": 2,
        "rounds": 1,
        "copies": 1,
        "select": "uniform",
        "replacement": True,
    },
    "treerl": {
        "unit": "token",
        "trees": 6,
        "picks": 2,
        "rounds": 1,
        "copies": 2,
        "select": "entropy",
        "replacement": False,
    },
    "treepo": {"unit": "segment", "segment": 512, "branching": 2, "width": 16, "trees": 2},
    "spo": {"unit": "segment", "segment": 600, "branching": (6, 6, 6), "width": None, "trees": None},
    "arpo": {"unit": "tool", "trees": 8, "width": 16, "select": "entropy"},
    "vineppo": {"unit": "vine", "trees": 1, "copies": 9},
}
"""The published settings. Tree-GRPO M, N, L = trees, picks, rounds; TreeRL's EPTree M, N, L, T with copies = T."""

Point = tuple[Branch, int]
Candidates = Callable[[Growth, int], list[Point]]
"""The points of the tree of that number at which a branch may be forked."""


async def expand(
    g: Growth, *, points: Candidates, trees: int, picks: int, rounds: int, copies: int, select: str, replacement: bool
) -> None:
    """Tree-GRPO and TreeRL: ``trees`` chains to the end, then ``rounds`` times ``picks`` points in every tree.

    ``points`` are the candidates in a tree. A fork at a token writes it anew, ``copies`` times; no point is forked at
    twice, unless with ``replacement``. Nodes end at steps where steps are forked, else at forks alone.
    """
    if points is token_points:
        g.edges = lambda branch: ()
    await g.advance([g.root(tree) for tree in range(trees)])
    forked: set[tuple[int, int]] = set()
    for _ in range(rounds):
        fresh: list[Branch] = []
        for tree in range(trees):
            free = points(g, tree)
            if not replacement or select != "uniform":
                free = [(branch, at) for branch, at in free if (branch.index, at) not in forked]
            for branch, at in choose(g, free, picks, select, replacement):
                forked.add((branch.index, at))
                fresh += [g.fork(branch, at) for _ in range(copies)]
        await g.advance(fresh)


def step_points(g: Growth, tree: int) -> list[Point]:
    """The prompt, then every end of a step behind which the same branch goes on."""
    members = [branch for branch in g.branches if branch.tree == tree]
    points = [(members[0], len(g.prompt))]
    return points + [(branch, at) for branch in members for at in branch.steps if at < branch.end]


def token_points(g: Growth, tree: int) -> list[Point]:
    """Every sampled token of the tree but the first of a side branch: where it stood, to be written anew."""
    return [
        (branch, branch.start + at)
        for branch in g.branches
        if branch.tree == tree
        for at in range(0 if branch.parent is None else 1, len(branch.ids))
        if branch.sampled[at]
    ]


def choose(g: Growth, points: Sequence[Point], count: int, select: str, replacement: bool) -> list[Point]:
    """``count`` points, uniformly or those whose token was least likely; fewer where there are no more."""
    if select == "entropy":
        return sorted(points, key=lambda p: (surprise(p), p[0].index, p[1]))[:count]
    if replacement:
        return [g.dice.choice(points) for _ in range(count if points else 0)]
    return g.dice.sample(points, min(count, len(points)))


def surprise(point: Point) -> float:
    """The log-probability of the token at a point (of the next one after a step); the prompt's end comes last."""
    branch, at = point
    return branch.logprobs[at - branch.start] if 0 <= at - branch.start < len(branch.logprobs) else 0.0


async def segments(
    g: Growth, *, trees: int | None, segment: int, branching: int | Sequence[int], width: int | None
) -> None:
    """TreePO and SPO: after every ``segment`` tokens each live path forks.

    ``branching`` a number: up to so many ways, while there are fewer than ``width`` paths; what finished paths leave
    free goes to live ones, and with none live a finished one is cut at a random segment edge; a path whose segment goes
    round in circles ends (TreePO). A list: so many ways at each level from the prompt on, the last level to the end
    (SPO). A node is a segment, whether it forks or not.
    """
    start = len(g.prompt)
    fixed = None if isinstance(branching, int) else list(branching)
    g.edges = lambda branch: range(start + segment, start + len(fixed) * segment if fixed else branch.end, segment)
    if fixed is None:
        g.loops = lambda text: False  # what goes round in circles is looked for at the edges
    first = fixed[0] if fixed else trees or 1
    live = [g.root(tree) for tree in range(first)]
    level = 1
    while not g.run.spent:
        last = fixed is not None and level >= len(fixed)
        edge = start + level * segment
        await g.advance(live, None if last else lambda branch, edge=edge: branch.end >= edge)  # type: ignore[misc]
        if last:
            return
        if fixed is None:
            _stop_repeating(g, live, segment)
        live = [branch for branch in live if not branch.finish]
        if not live:
            if fixed is not None or width is None or len(g.branches) >= width:
                return
            live, level = _fallback(g, segment)
            continue
        room = None if width is None else max(0, width - len(g.branches))
        ways = fixed[level] if fixed else int(branching)  # type: ignore[arg-type]
        live += [g.fork(branch, branch.end) for branch in (live * (ways - 1))[:room]]  # dealt out in turns
        level += 1


def _stop_repeating(g: Growth, branches: Sequence[Branch], segment: int) -> None:
    """End those whose last segment goes round in circles."""
    for branch in branches:
        if not branch.finish and repeats(g.run.read(branch.path(lambda one: one.ids)[-segment:])):
            branch.finish = "loop"


def _fallback(g: Growth, segment: int) -> tuple[list[Branch], int]:
    """One finished path, of those that came to an end of their own if there are any, cut at a random segment edge."""
    start = len(g.prompt)
    ended = [branch for branch in g.branches if branch.finish == "end"] or g.branches
    branch = g.dice.choice(ended)
    level = g.dice.choice(range(0, branch.end - start, segment)) // segment
    return [g.fork(branch, start + level * segment)], level + 1


async def after_tools(g: Growth, *, trees: int, width: int, select: str, tokens: int = 20, beam: int = 2) -> None:
    """ARPO: ``trees`` chains; where the text after a tool result is less certain than at the start, fork there.

    Branch if ``clip(u - 0.2 (H_now - H_init), 0, 1) <= 0.5``, u uniform, H the mean entropy of the first ``tokens``
    tokens; at most ``beam - 1`` copies per event. "uniform" leaves the entropies out. Slots that are left are filled by
    fresh chains from the prompt.
    """
    g.edges = lambda branch: branch.calls
    live = [g.root(tree) for tree in range(trees)]
    asked: set[tuple[int, int]] = set()
    while live and not g.run.spent:
        await g.advance(live, lambda branch: _event(branch, asked, tokens) is not None)
        fresh: list[Branch] = []
        for branch in live:
            at = _event(branch, asked, tokens)
            if at is None:
                continue
            asked.add((branch.index, at))
            now = branch.entropies[at - branch.start :][:tokens]
            first = list(branch.lineage())[-1].entropies[:tokens]
            rise = sum(now) / len(now) - sum(first) / len(first) if select == "entropy" else 0.0
            if g.dice.random() - 0.2 * rise <= 0.5:
                fresh += [g.fork(branch, at) for _ in range(min(beam - 1, width - len(g.branches)))]
        live = [branch for branch in [*live, *fresh] if not branch.finish]
    await g.advance([g.root(tree) for tree in range(trees, trees + width - len(g.branches))])


def _event(branch: Branch, asked: set[tuple[int, int]], tokens: int) -> int | None:
    """A tool result that has ``tokens`` tokens behind it (or the branch's end) and was not asked about."""
    for at in branch.calls:
        behind = branch.end - at
        if (branch.index, at) not in asked and (behind >= tokens or (branch.finish and behind > 0)):
            return at
    return None


async def vine(g: Growth, *, trees: int, copies: int) -> None:
    """VinePPO: chains to the end, then ``copies`` auxiliary rollouts from the start of every step of each."""
    chains = [g.root(tree) for tree in range(trees)]
    await g.advance(chains)
    fresh: list[Branch] = []
    for chain in chains:
        for at in [len(g.prompt), *(step for step in chain.steps if step < chain.end)]:
            fresh += [g.fork(chain, at) for _ in range(copies)]
    for branch in fresh:
        branch.auxiliary = True
    await g.advance(fresh)


GROWERS: dict[str, Callable[..., Awaitable[None]]] = {
    "step": partial(expand, points=step_points),
    "token": partial(expand, points=token_points),
    "segment": segments,
    "tool": after_tools,
    "vine": vine,
}
"""What grows a tree, by the unit of its method."""
