"""Advantages of tree-structured rollouts, as closed forms: six published estimators, and what they share.

A tree is given by ``parents`` (``parents[0]`` is -1: node 0 is the prompt; a parent comes before its children) and
``rewards`` by leaf node. Pure functions of numbers; nothing here knows of tokens or models. Where papers and code
differ or are silent, one rule holds here: a group of one, and a group of equal rewards, says nothing and gives 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kvorum.errors import BadRequest

EPSILON = 1e-6


def zscores(
    values: Sequence[float], *, singleton: str = "zero", lost: int = 1, epsilon: float = EPSILON
) -> list[float]:
    """``(x - mean) / (std + epsilon)``; the deviation is over ``n - lost``, so by default the sample's.

    ``singleton`` "raw" returns a lone value as it is, as the released Tree-GRPO and GRPO code does; "zero" gives 0.
    """
    if len(values) == 1 and singleton == "raw":
        return [float(values[0])]
    return whiten(values, [1] * len(values), lost=lost, epsilon=epsilon)


def grpo(rewards: Sequence[float], *, singleton: str = "zero") -> list[float]:
    """One advantage per leaf, over all leaves of the prompt (GRPO; ARPO's "soft" form on the branched set)."""
    return zscores(rewards, singleton=singleton)


def tree_grpo(rewards: Sequence[float], trees: Sequence[int], *, singleton: str = "zero") -> list[float]:
    """Tree-GRPO (arXiv 2509.21240): z-score within the leaf's tree plus z-score over all leaves of the prompt."""
    total = zscores(rewards, singleton=singleton)
    for tree in set(trees):
        members = [at for at, other in enumerate(trees) if other == tree]
        for at, score in zip(members, zscores([rewards[at] for at in members], singleton=singleton), strict=True):
            total[at] += score
    return total


def treepo(
    parents: Sequence[int],
    rewards: Mapping[int, float],
    *,
    weight: str = "plain",
    drop_equal: bool = False,
    root: bool = True,
) -> dict[int, float]:
    """TreePO (arXiv 2508.17445): per leaf, ``R - mean(R of the subgroup)`` averaged over its ancestors' subgroups.

    The whole group counts always (unless not ``root``), other subgroups from two leaves on. A chain of nodes with the
    same leaves below is one subgroup each, as segments are in the paper. ``weight`` "plain" (better in the paper) or
    "size" (the code's default); ``drop_equal`` leaves subgroups of equal rewards out (worse in the paper).
    """
    if weight not in ("plain", "size"):
        raise BadRequest(f"There is no weight {weight!r}; there are: plain, size.")
    below = leaves_below(parents, rewards)
    found = {}
    for leaf, reward in rewards.items():
        total = weights = 0.0
        for node in ancestors(parents, leaf):
            group = [rewards[other] for other in below[node]]
            skip = (not root) if node == 0 else len(group) < 2
            if skip or (drop_equal and max(group) - min(group) < 1e-12):
                continue
            share = float(len(group)) if weight == "size" else 1.0
            total += share * (reward - math.fsum(group) / len(group))
            weights += share
        found[leaf] = total / weights if weights else 0.0
    return found


def whiten(
    advantages: Sequence[float], tokens: Sequence[int], *, lost: int = 1, epsilon: float = EPSILON
) -> list[float]:
    """Mean 0 and deviation 1 over all tokens of a batch, where leaf i has ``tokens[i]`` tokens (TreePO's last step).

    The deviation is over ``n - lost``, so by default the sample's; ``epsilon`` is added to it.
    """
    count = sum(tokens)
    if count < 2:
        return [0.0 for _ in advantages]
    mean = math.fsum(a * n for a, n in zip(advantages, tokens, strict=True)) / count
    spread = math.sqrt(math.fsum(n * (a - mean) ** 2 for a, n in zip(advantages, tokens, strict=True)) / (count - lost))
    return [0.0 if spread < 1e-12 else (a - mean) / (spread + epsilon) for a in advantages]


def spo(parents: Sequence[int], rewards: Mapping[int, float], *, norm: str = "rloo") -> dict[int, float]:
    """SPO-tree (arXiv 2505.23564), per edge (named by its lower node): ``V(child) - V(parent)``.

    V of a leaf is its reward, of a node the mean of its children. ``norm`` "grpo" divides by the deviation of the
    siblings' values, over n and with 1e-8, as the released code has it. An only child has 0. The paper trains on edges
    that are not 0.
    """
    if norm not in ("rloo", "grpo"):
        raise BadRequest(f"There is no norm {norm!r}; there are: rloo, grpo.")
    values = dict(rewards)
    below = _children(parents)
    for node in reversed(range(len(parents))):
        if node not in rewards and below[node]:
            values[node] = math.fsum(values[child] for child in below[node]) / len(below[node])
    edges = {}
    for node, kids in enumerate(below):
        scores = zscores([values[kid] for kid in kids], lost=0, epsilon=1e-8)
        for kid, score in zip(kids, scores, strict=True):
            edges[kid] = score if norm == "grpo" else values[kid] - values[node]
    return edges


def treerl(parents: Sequence[int], rewards: Mapping[int, float]) -> dict[int, float]:
    """TreeRL (ACL 2025), per edge: ``[(V(n) - V(root)) + (V(n) - V(parent))] / sqrt(leaves below n)``.

    V is the mean, over the leaves below, of rewards centred by the mean of the others. A lone leaf has 0.
    ``treerl_released`` is what the released code computes instead.
    """
    values, below = _centred(parents, rewards)
    return {
        node: (2 * values[node] - values[0] - values[parent]) / math.sqrt(len(below[node]))
        for node, parent in enumerate(parents)
        if parent >= 0 and below[node]
    }


def treerl_released(parents: Sequence[int], rewards: Mapping[int, float]) -> dict[int, float]:
    """TreeRL as released (github.com/THUDM/TreeRL), per edge: ``W(n) + (W(n) - W(parent))``, W = V / sqrt(leaves).

    So the root of the leaves is taken before the difference. A difference of 0 is taken from the node before, if that
    is not the prompt.
    """
    values, below = _centred(parents, rewards)
    weighted = [value / math.sqrt(max(1, len(group))) for value, group in zip(values, below, strict=True)]
    local: dict[int, float] = {}
    for node, parent in enumerate(parents):
        if parent >= 0 and below[node]:
            local[node] = weighted[node] - weighted[parent]
            if abs(local[node]) < 1e-8 and parent:
                local[node] = local[parent]
    return {node: weighted[node] + change for node, change in local.items()}


def _centred(parents: Sequence[int], rewards: Mapping[int, float]) -> tuple[list[float], list[list[int]]]:
    """Per node, the mean of the leaves below of rewards centred by the mean of the others; and those leaves."""
    count, total = len(rewards), math.fsum(rewards.values())
    centred = {leaf: reward - (total - reward) / (count - 1) if count > 1 else 0.0 for leaf, reward in rewards.items()}
    below = leaves_below(parents, rewards)
    return [math.fsum(centred[leaf] for leaf in group) / max(1, len(group)) for group in below], below


def arpo(parents: Sequence[int], rewards: Mapping[int, float], *, kind: str = "soft") -> dict[int, float]:
    """ARPO (arXiv 2507.19849): "soft" is GRPO per leaf; "hard" per edge, the mean of the GRPO of the leaves below."""
    if kind not in ("soft", "hard"):
        raise BadRequest(f"There is no kind {kind!r}; there are: soft, hard.")
    leaf = dict(zip(rewards, grpo(list(rewards.values())), strict=True))
    if kind == "soft":
        return leaf
    below = leaves_below(parents, rewards)
    return {
        node: math.fsum(leaf[other] for other in below[node]) / len(below[node])
        for node, parent in enumerate(parents)
        if parent >= 0 and below[node]
    }


def vineppo(values: Sequence[float], reward: float) -> list[float]:
    """VinePPO (arXiv 2410.01679), per step of one chain: ``r + V(next state) - V(state)``.

    ``values`` are V at the start of each step (means over auxiliary rollouts); after the last step V is 0 and r the
    chain's reward, before it r is 0.
    """
    after = [*values[1:], reward][: len(values)]
    return [then - now for now, then in zip(values, after, strict=True)]


def ancestors(parents: Sequence[int], node: int) -> list[int]:
    """From the node's parent up to the prompt."""
    found = []
    while (node := parents[node]) >= 0:
        found.append(node)
    return found


def leaves_below(parents: Sequence[int], rewards: Mapping[int, float]) -> list[list[int]]:
    """Per node, the leaves below it; a leaf is below itself."""
    below: list[list[int]] = [[] for _ in parents]
    for leaf in rewards:
        for node in (leaf, *ancestors(parents, leaf)):
            below[node].append(leaf)
    return below


def _children(parents: Sequence[int]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent >= 0:
            found[parent].append(node)
    return found
