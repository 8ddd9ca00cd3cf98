"""tree against the papers: every method's nodes and estimator, with its default step, from the definitions.

Trees are grown by the program from texts full of empty lines, with segments that nobody forks and rewards that tie.
The judge knows no nodes: it knows, for every token, which leaves go through it, and has each paper's formula from
that. Sources: Tree-GRPO arXiv 2509.21240, TreeRL (ACL 2025) and its code, TreePO 2508.17445 and its code, SPO
2505.23564, ARPO 2507.19849, VinePPO 2410.01679. Values that the authors' code gave for small trees stand at the end.
"""

from __future__ import annotations

import random
import statistics
from math import sqrt
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Engine, Run, Sampling, program
from kvorum.programs.tree import advantages as forms
from kvorum.programs.tree import export as out
from kvorum.programs.tree.branch import RolloutSettings, repeats
from kvorum.programs.tree.grow import Growth
from kvorum.programs.tree.methods import token_points
from kvorum.programs.tree.nodes import Tree
from kvorum.programs.tree.tree import grow, settle

Token = tuple[int, int]
"""The branch that wrote it, and its position: what a shared token is known by."""
SEEDS = range(12)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return toy_engine.fake(kv_tokens=16384)


def grown(engine: Engine, method: str, *, tokens: int, script: str | None, seed: int = 0, **given: Any) -> Tree:
    """A tree as the program grows it, with the default step."""
    found: list[Tree] = []

    @program("grown", "grows a tree")
    async def grown_(run: Run) -> str:
        settings = RolloutSettings(tokens, script=script)
        found.append(await grow(run, run.encode("What is it?"), settle(method, given), settings))
        return "done"

    engine.run(grown_, "p", workers=4, budget=Budget(ticks=9999), sampling=Sampling(temperature=1.0), seed=seed)
    return found[0]


def text(seed: int) -> str:
    """Letters with many empty lines."""
    dice = random.Random(seed)
    return "".join(dice.choice(["a", "b", "c", "\n\n", "\n", "."]) for _ in range(60))


class Paths:
    """The leaves' paths of a tree, token by token, and their rewards with ties."""

    def __init__(self, tree: Tree, seed: int, rewards: list[float] | None = None) -> None:
        dice = random.Random(seed)
        self.tree = tree
        self.leaves = tree.leaves
        self.prompt = len(tree.nodes[0].ids)
        self.paths: dict[int, list[Token]] = {
            leaf: [
                (tree.nodes[at].branch, tree.nodes[at].start + n)
                for at in tree.path(leaf)[1:]
                for n in range(len(tree.nodes[at].ids))
            ]
            for leaf in self.leaves
        }
        for number, leaf in enumerate(self.leaves):
            tree.nodes[leaf].reward = dice.choice([0.0, 0.5, 1.0]) if rewards is None else rewards[number]
        self.reward = {leaf: tree.nodes[leaf].reward or 0.0 for leaf in self.leaves}

    def through(self, token: Token) -> frozenset[int]:
        """The leaves whose paths hold the token."""
        return frozenset(leaf for leaf, path in self.paths.items() if token in path)

    def mean(self, leaves: frozenset[int] | list[int], value: dict[int, float]) -> float:
        return statistics.fmean(value[leaf] for leaf in leaves)

    def per_token(self, estimator: str) -> dict[Token, float]:
        """What the program gives, for estimators per edge."""
        self.tree.estimate(estimator)
        return {
            (node.branch, node.start + n): node.advantage or 0.0
            for node in self.tree.nodes[1:]
            for n in range(len(node.ids))
        }

    def per_leaf(self, estimator: str) -> dict[int, float]:
        """What the program gives, for estimators per leaf."""
        self.tree.estimate(estimator)
        return {leaf: self.tree.nodes[leaf].advantage or 0.0 for leaf in self.leaves}


def z(value: float, group: list[float], *, sample: bool = True, epsilon: float = 1e-6) -> float:
    if len(group) < 2 or max(group) == min(group):
        return 0.0
    spread = statistics.stdev(group) if sample else statistics.pstdev(group)
    return (value - statistics.fmean(group)) / (spread + epsilon)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("norm", ["rloo", "grpo"])
def test_spo(engine: Engine, seed: int, norm: str) -> None:
    """A node is a segment: V of a leaf is its reward, of a node the mean of its children; V(child) - V(parent)."""
    dice = random.Random(seed)
    segment, branching = dice.choice([3, 5]), dice.choice([(2, 2), (2, 1, 2), (3, 2), (1, 3)])
    made = grown(
        engine,
        "spo",
        tokens=20,
        script=text(seed) if seed % 3 else None,
        seed=seed,
        segment=segment,
        branching=branching,
    )
    known = Paths(made, seed)
    last = len(branching) - 1

    def level(token: Token) -> int:
        return min((token[1] - known.prompt) // segment, last)

    def children(parent: tuple[Token, ...]) -> set[tuple[Token, ...]]:
        """Nodes are named by their path of first tokens."""
        found = set()
        for path in known.paths.values():
            firsts = tuple(token for at, token in enumerate(path) if not at or level(token) != level(path[at - 1]))
            if firsts[: len(parent)] == parent and len(firsts) > len(parent):
                found.add(firsts[: len(parent) + 1])
        return found

    def value(node: tuple[Token, ...]) -> float:
        below = children(node)
        return statistics.fmean(map(value, below)) if below else known.reward[next(iter(known.through(node[-1])))]

    found = known.per_token("spo" if norm == "rloo" else "spo-grpo")
    for path in known.paths.values():
        node: tuple[Token, ...] = ()
        for at, token in enumerate(path):
            if not at or level(token) != level(path[at - 1]):
                parent, node = node, (*node, token)
            siblings = [value(one) for one in children(parent)]
            expected = (
                value(node) - value(parent) if norm == "rloo" else z(value(node), siblings, sample=False, epsilon=1e-8)
            )
            assert found[token] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_treepo(engine: Engine, seed: int) -> None:
    """Each segment before a leaf's last is a subgroup, forked or not; alone it is skipped, the whole group never."""
    dice = random.Random(seed)
    segment, given = (
        dice.choice([3, 4]),
        dice.choice([{"width": 5}, {"width": 3, "branching": 1}, {"width": 6, "trees": 3}]),
    )
    made = grown(
        engine, "treepo", tokens=17, script=text(seed) if seed % 3 else None, seed=seed, segment=segment, **given
    )
    known = Paths(made, seed)
    plain = {}
    for leaf, path in known.paths.items():
        groups = [frozenset(known.leaves)]
        groups += [known.through(path[end - 1]) for end in range(segment, len(path), segment)]
        groups = [group for at, group in enumerate(groups) if at == 0 or len(group) > 1]
        plain[leaf] = statistics.fmean(known.reward[leaf] - known.mean(group, known.reward) for group in groups)
    every = [plain[leaf] for leaf, path in known.paths.items() for _ in path]
    expected = {leaf: z(score, every) for leaf, score in plain.items()}
    assert known.per_leaf("treepo") == pytest.approx(expected, abs=1e-4)


def values_by_leave_one_out(known: Paths) -> dict[int, float]:
    rewards = known.reward
    if len(rewards) < 2:
        return dict.fromkeys(rewards, 0.0)
    return {n: r - statistics.fmean(o for m, o in rewards.items() if m != n) for n, r in rewards.items()}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("released", [False, True])
def test_treerl(engine: Engine, seed: int, released: bool) -> None:
    """A node is a span between forks: global and local value, over the root of the leaves below."""
    made = grown(
        engine, "treerl", tokens=14, script=text(seed) if seed % 3 else None, seed=seed, trees=2, copies=1 + seed % 2
    )
    known = Paths(made, seed)
    centred = values_by_leave_one_out(known)
    everything = frozenset(known.leaves)
    found = known.per_token("treerl-released" if released else "treerl")
    for path in known.paths.values():
        groups = [known.through(token) for token in path]
        own, above, local = frozenset[int](), everything, 0.0
        for token, group in zip(path, groups, strict=True):
            v = known.mean(group, centred)
            if group != own:
                first = not own
                above, own = (everything if first else own), group
                weighted, before = v / sqrt(len(group)), known.mean(above, centred) / sqrt(len(above))
                change = weighted - before
                local = local if abs(change) < 1e-8 and not first else change
            if released:
                expected = local + v / sqrt(len(group))
            else:
                expected = (v - known.mean(everything, centred) + v - known.mean(above, centred)) / sqrt(len(group))
            assert found[token] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_tree_grpo(engine: Engine, seed: int) -> None:
    """The z-score within the tree and the one over all leaves, added."""
    made = grown(engine, "tree-grpo", tokens=20, script=text(seed), seed=seed, rounds=1 + seed % 2)
    known = Paths(made, seed)
    tree = {leaf: made.nodes[leaf].tree for leaf in known.leaves}
    for leaf, found in known.per_leaf("tree-grpo").items():
        own = [known.reward[other] for other in known.leaves if tree[other] == tree[leaf]]
        expected = z(known.reward[leaf], own) + z(known.reward[leaf], list(known.reward.values()))
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_arpo(engine: Engine, seed: int) -> None:
    """Soft: GRPO over the branched set; hard: on shared tokens the mean of those that share them."""
    made = grown(engine, "tree-grpo", tokens=20, script=text(seed), seed=seed)
    known = Paths(made, seed)
    soft = {leaf: z(reward, list(known.reward.values())) for leaf, reward in known.reward.items()}
    assert known.per_leaf("arpo") == pytest.approx(soft, abs=1e-9)
    for token, found in known.per_token("arpo-hard").items():
        assert found == pytest.approx(known.mean(known.through(token), soft), abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_vineppo(engine: Engine, seed: int) -> None:
    """Per step of a chain: r + V(next) - V(this), V the mean of the rollouts that begin there."""
    made = grown(engine, "vineppo", tokens=20, script=text(seed), seed=seed, copies=2)
    known = Paths(made, seed)
    chain = next(leaf for leaf in known.leaves if not made.nodes[leaf].auxiliary)
    path = known.paths[chain]
    begun: dict[int, list[float]] = {}
    for leaf in known.leaves:
        if leaf != chain:
            shared = sum(token in path for token in known.paths[leaf])
            begun.setdefault(shared, []).append(known.reward[leaf])
    steps = sorted(begun)
    value = {at: statistics.fmean(rewards) for at, rewards in begun.items()}
    found = known.per_token("vineppo")
    for number, start in enumerate(steps):
        end = steps[number + 1] if number + 1 < len(steps) else len(path)
        after = value[end] if end < len(path) else known.reward[chain]
        for token in path[start:end]:
            assert found[token] == pytest.approx(after - value[start], abs=1e-9)


# -- what the authors' code gives ----------------------------------------------------------------------------------

LINES = "ab\n\ncd\n\nef\n\ngh\n\nij\n\nkl\n\n"


def test_a_segment_of_spo_has_one_advantage_across_empty_lines(engine: Engine) -> None:
    made = grown(engine, "spo", tokens=22, script=LINES, segment=10, branching=[2, 2])
    known = Paths(made, 0, [1.0, 0.0, 1.0, 1.0])
    found = known.per_token("spo")
    first = known.paths[known.leaves[0]][:10]
    assert [found[token] for token in first] == pytest.approx([0.25] * 10)
    weighed = sum(len(episode["ids"]) for episode in out.episodes(made))
    assert (weighed, made.sampled) == (44, 68)


def test_a_segment_of_treepo_is_a_node_across_empty_lines(engine: Engine) -> None:
    made = grown(engine, "treepo", tokens=22, script=LINES, segment=10, width=4, trees=2)
    known = Paths(made, 0, [1.0, 0.0, 1.0, 1.0])
    found = list(known.per_leaf("treepo").values())
    assert sorted(found) == pytest.approx(sorted([0.331, -1.657, 0.331, 0.994]), abs=2e-3)


def test_a_segment_of_treepo_is_a_node_without_a_fork(engine: Engine) -> None:
    made = grown(
        engine, "treepo", tokens=18, script="abcdefghijklmnop", seed=2, segment=4, width=3, trees=2, branching=1
    )
    known = Paths(made, 0, [1.0, 0.0, 1.0])
    assert list(known.per_leaf("treepo").values()) == pytest.approx([0.556, -1.391, 0.835], abs=2e-3)


def test_treerl_of_the_paper_and_as_released() -> None:
    parents, rewards = [-1, 0, 1, 1, 0], {2: 1.0, 3: 0.0, 4: 0.0}
    paper, released = forms.treerl(parents, rewards), forms.treerl_released(parents, rewards)
    assert (paper[2], paper[3]) == pytest.approx((1.75, -1.25))
    assert (released[2], released[3]) == pytest.approx((1.8232, -1.1768), abs=1e-4)


def test_treerl_may_fork_at_the_first_token_of_a_root_alone(engine: Engine) -> None:
    @program("probe", "forks")
    async def probe(run: Run) -> str:
        g = Growth(run, RolloutSettings(8))
        await g.begin(run.encode("What is it?"))
        await g.advance([chain := g.root(0)])
        await g.advance([side := g.fork(chain, chain.start + 3)])
        points = token_points(g, 0)
        assert (chain, chain.start) in points
        assert (side, side.start) not in points
        assert (side, side.start + 1) in points
        return "done"

    assert engine.run(probe, "p", sampling=Sampling(temperature=1.0)).answer == "done"


def test_spo_divides_by_the_deviation_over_n() -> None:
    values = [1.0, 0.0, 0.0, 1.0, 1.0]
    scores = forms.spo([-1, 0, 0, 0, 0, 0], dict(enumerate(values, 1)), norm="grpo")
    assert scores[1] == pytest.approx((1 - statistics.fmean(values)) / (statistics.pstdev(values) + 1e-8))


def test_treepo_stops_a_segment_of_repetitions(engine: Engine) -> None:
    assert repeats("a" * 39)
    assert not repeats("a" * 38)
    assert not repeats("".join(chr(33 + at) for at in range(80)))
    made = grown(engine, "treepo", tokens=200, script="a" * 199, segment=39, width=2, trees=1, branching=1)
    assert {made.nodes[leaf].finish for leaf in made.leaves} == {"loop"}
    made = grown(engine, "treepo", tokens=90, script="a" * 89, segment=30, width=1, trees=1, branching=1)
    assert {made.nodes[leaf].finish for leaf in made.leaves} == {"end"}
