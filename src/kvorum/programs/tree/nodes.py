"""A finished tree of rollouts: nodes between branching points and steps, rewards at leaves, advantages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from kvorum.harness.answers import AnswerKind, majority, read
from kvorum.programs.tree import advantages as forms
from kvorum.programs.tree.branch import Branch
from kvorum.programs.tree.grow import Growth
from kvorum.runs.run import Run
from kvorum.tasks.scoring import normalised

PER_EDGE = ("treerl", "treerl-released", "spo", "spo-grpo", "arpo-hard", "vineppo")
ESTIMATORS = ("tree-grpo", "grpo", "treepo", "arpo", *PER_EDGE)


@dataclass(slots=True, eq=False)
class Node:
    """Own tokens only. Node 0 is the prompt (parent -1). ``reward`` and ``finish`` are those of a leaf.

    ``advantage`` is of its own tokens where the estimator is per edge, else of its whole path, at leaves only.
    """

    parent: int
    tree: int
    branch: int
    ids: list[int]
    sampled: list[bool]
    logprobs: list[float]
    start: int
    reward: float | None = None
    finish: str = ""
    answer: str | None = None
    auxiliary: bool = False
    advantage: float | None = None


@dataclass(slots=True, eq=False)
class Tree:
    """Nodes, each behind its parent."""

    nodes: list[Node]
    estimator: str = ""

    @property
    def parents(self) -> list[int]:
        """Per node, its parent."""
        return [node.parent for node in self.nodes]

    @property
    def leaves(self) -> list[int]:
        """The nodes at which rollouts end."""
        return [at for at, node in enumerate(self.nodes) if node.finish]

    def path(self, leaf: int) -> list[int]:
        """From the prompt to ``leaf``."""
        return [*reversed(forms.ancestors(self.parents, leaf)), leaf]

    @property
    def sampled(self) -> int:
        """Tokens that were sampled, shared ones once."""
        return sum(sum(node.sampled) for node in self.nodes)

    @property
    def unshared(self) -> int:
        """Sampled tokens that the same leaves would have taken as independent chains."""
        return sum(sum(sum(self.nodes[at].sampled) for at in self.path(leaf)) for leaf in self.leaves)

    def reward(self, run: Run, kind: AnswerKind) -> str | None:
        """Set the leaves' answers and rewards; returns the answer of most, the first of them where there is a tie."""
        leaves = [self.nodes[at] for at in self.leaves]
        for at, leaf in zip(self.leaves, leaves, strict=True):
            text = run.read([token for node in self.path(at)[1:] for token in self.nodes[node].ids])
            leaf.answer = leaf.answer or read(text, kind)
        best = majority([leaf.answer for leaf in leaves if leaf.answer])
        for leaf in leaves:
            leaf.reward = run.task.score(leaf.answer)
            if leaf.reward is None:
                leaf.reward = float(best is not None and normalised(leaf.answer or "") == normalised(best))
        return best

    def estimate(self, estimator: str) -> None:
        """Fill in the advantages by that one of ``ESTIMATORS``."""
        scores = self._scores(estimator, {leaf: self.nodes[leaf].reward or 0.0 for leaf in self.leaves})
        self.estimator = estimator
        for at, node in enumerate(self.nodes):
            node.advantage = scores.get(at)

    def _scores(self, estimator: str, rewards: dict[int, float]) -> dict[int, float]:
        """The advantages by node: by leaf, or by edge."""
        values = list(rewards.values())
        if estimator == "grpo":
            return dict(zip(rewards, forms.grpo(values), strict=True))
        if estimator == "tree-grpo":
            trees = [self.nodes[leaf].tree for leaf in rewards]
            return dict(zip(rewards, forms.tree_grpo(values, trees), strict=True))
        if estimator == "treepo":
            plain = forms.treepo(self.parents, rewards)
            tokens = [sum(sum(self.nodes[at].sampled) for at in self.path(leaf)) for leaf in plain]
            return dict(zip(plain, forms.whiten(list(plain.values()), tokens), strict=True))
        if estimator == "vineppo":
            return self._vine(rewards)
        if estimator.startswith("arpo"):
            return forms.arpo(self.parents, rewards, kind="hard" if estimator == "arpo-hard" else "soft")
        if estimator.startswith("spo"):
            return forms.spo(self.parents, rewards, norm="grpo" if estimator == "spo-grpo" else "rloo")
        return (forms.treerl if estimator == "treerl" else forms.treerl_released)(self.parents, rewards)

    def _vine(self, rewards: dict[int, float]) -> dict[int, float]:
        """V of a step's start is the mean of the auxiliary rollouts that begin there."""
        begun: dict[tuple[int, int], list[float]] = defaultdict(list)
        for leaf, reward in rewards.items():
            end = self.nodes[leaf]
            if end.auxiliary:
                fork = min(self.nodes[at].start for at in self.path(leaf) if self.nodes[at].branch == end.branch)
                begun[end.tree, fork].append(reward)
        scores: dict[int, float] = {}
        for leaf, reward in rewards.items():
            if not self.nodes[leaf].auxiliary:
                steps = self.path(leaf)[1:]
                values = [fmean(begun[self.nodes[at].tree, self.nodes[at].start] or [reward]) for at in steps]
                scores.update(zip(steps, forms.vineppo(values, reward), strict=True))
        return scores


def assemble(g: Growth) -> Tree:
    """The tree of all branches that wrote something; a node ends where its branch does, at a fork, or at an edge.

    ``g.edges`` says where the edges of a branch's nodes are by its method.
    """
    branches = [branch for branch in g.branches if branch.ids]
    cuts: dict[int, set[int]] = {branch.index: {*g.edges(branch), branch.end} for branch in branches}
    for branch in branches:
        if branch.parent is not None:
            cuts[branch.parent.index].add(branch.start)
    tree = Tree([Node(-1, -1, -1, g.prompt, [False] * len(g.prompt), [0.0] * len(g.prompt), 0)])
    ends: dict[tuple[int, int], int] = {}
    for branch in branches:
        parent = 0 if branch.parent is None else ends[(branch.parent.index, branch.start)]
        start = branch.start
        for end in sorted(cut for cut in cuts[branch.index] if branch.start < cut <= branch.end):
            tree.nodes.append(_node(branch, parent, start, end))
            parent = ends[(branch.index, end)] = len(tree.nodes) - 1
            start = end
        tree.nodes[parent].finish = branch.finish or "spent"
        tree.nodes[parent].auxiliary = branch.auxiliary
        tree.nodes[parent].answer = branch.answer
    return tree


def _node(branch: Branch, parent: int, start: int, end: int) -> Node:
    def part(values: Sequence[int | float | bool]) -> list:  # type: ignore[type-arg]
        return list(values[start - branch.start : end - branch.start])

    return Node(parent, branch.tree, branch.index, part(branch.ids), part(branch.sampled), part(branch.logprobs), start)
