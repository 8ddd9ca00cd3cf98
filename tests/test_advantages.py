"""The estimators against brute force that follows the definitions, and their edge cases."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest

from kvorum.errors import BadRequest
from kvorum.programs.tree import advantages as forms

PARENTS = [-1, 0, 0, 1, 1, 2, 5, 5, 5]  # the prompt; two trees; leaves 3, 4, 6, 7, 8
REWARDS = {3: 1.0, 4: 0.0, 6: 0.0, 7: 1.0, 8: 1.0}


def random_tree(seed: int) -> tuple[list[int], dict[int, float]]:
    dice = random.Random(seed)
    parents = [-1]
    for node in range(1, dice.randint(2, 14)):
        parents.append(dice.randrange(node))
    leaves = [node for node in range(len(parents)) if node not in parents]
    return parents, {leaf: dice.choice([0.0, 1.0, dice.random()]) for leaf in leaves}


def below(parents: list[int], rewards: dict[int, float], node: int) -> list[int]:
    """The leaves below, by walking up from each."""
    found = []
    for leaf in rewards:
        at = leaf
        while at != node and at >= 0:
            at = parents[at]
        if at == node:
            found.append(leaf)
    return found


def z(value: float, group: list[float]) -> float:
    if len(group) < 2 or len(set(group)) == 1:
        return 0.0
    return (value - statistics.mean(group)) / (statistics.stdev(group) + 1e-6)


def population(value: float, group: list[float]) -> float:
    """As SPO's code has it: the deviation over n, and 1e-8."""
    spread = statistics.pstdev(group)
    return 0.0 if spread < 1e-12 else (value - statistics.mean(group)) / (spread + 1e-8)


def same(found: Any, expected: Any) -> None:
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_tree_grpo(seed: int) -> None:
    dice = random.Random(seed)
    rewards = [dice.choice([0.0, 1.0, 0.5]) for _ in range(dice.randint(1, 8))]
    trees = [dice.randrange(3) for _ in rewards]
    inner = [
        z(r, [o for o, s in zip(rewards, trees, strict=True) if s == t]) for r, t in zip(rewards, trees, strict=True)
    ]
    outer = [z(r, rewards) for r in rewards]
    same(forms.tree_grpo(rewards, trees), [a + b for a, b in zip(inner, outer, strict=True)])
    same(forms.grpo(rewards), outer)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("options", [{}, {"weight": "size"}, {"drop_equal": True}, {"root": False}])
def test_treepo(seed: int, options: dict[str, Any]) -> None:
    parents, rewards = random_tree(seed)
    expected = {}
    for leaf, reward in rewards.items():
        terms, weights, at = [], [], leaf
        while (at := parents[at]) >= 0:
            group = [rewards[other] for other in below(parents, rewards, at)]
            if (at == 0 and not options.get("root", True)) or (at != 0 and len(group) == 1):
                continue
            if options.get("drop_equal") and len(set(group)) == 1:
                continue
            terms.append(reward - statistics.mean(group))
            weights.append(len(group) if options.get("weight") == "size" else 1)
        expected[leaf] = sum(t * w for t, w in zip(terms, weights, strict=True)) / sum(weights) if weights else 0.0
    same(forms.treepo(parents, rewards, **options), expected)


def test_whitening_is_over_tokens() -> None:
    tokens, advantages = [3, 1, 5], [0.5, -1.0, 0.25]
    repeated = [a for a, n in zip(advantages, tokens, strict=True) for _ in range(n)]
    same(forms.whiten(advantages, tokens), [z(a, repeated) for a in advantages])
    assert forms.whiten([0.3], [1]) == [0.0]
    assert forms.whiten([0.3, 0.3], [4, 5]) == [0.0, 0.0]
    assert forms.whiten([], []) == []


@pytest.mark.parametrize("seed", range(20))
def test_spo(seed: int) -> None:
    parents, rewards = random_tree(seed)

    def value(node: int) -> float:
        kids = [kid for kid, parent in enumerate(parents) if parent == node]
        return statistics.mean(map(value, kids)) if kids else rewards[node]

    edges = {node: value(node) - value(parent) for node, parent in enumerate(parents) if parent >= 0}
    same(forms.spo(parents, rewards), edges)
    groups = {node: [value(kid) for kid, p in enumerate(parents) if p == parents[node]] for node in edges}
    same(forms.spo(parents, rewards, norm="grpo"), {node: population(value(node), groups[node]) for node in edges})


@pytest.mark.parametrize("seed", range(20))
def test_treerl(seed: int) -> None:
    parents, rewards = random_tree(seed)
    if len(rewards) > 1:
        centred = {n: r - statistics.mean(o for m, o in rewards.items() if m != n) for n, r in rewards.items()}
    else:
        centred = dict.fromkeys(rewards, 0.0)

    def value(node: int) -> float:
        return statistics.mean(centred[leaf] for leaf in below(parents, rewards, node))

    expected = {
        node: ((value(node) - value(0)) + (value(node) - value(parent))) / len(below(parents, rewards, node)) ** 0.5
        for node, parent in enumerate(parents)
        if parent >= 0
    }
    same(forms.treerl(parents, rewards), expected)
    assert value(0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_arpo(seed: int) -> None:
    parents, rewards = random_tree(seed)
    soft = {leaf: z(reward, list(rewards.values())) for leaf, reward in rewards.items()}
    same(forms.arpo(parents, rewards), soft)
    hard = {
        node: statistics.mean(soft[leaf] for leaf in below(parents, rewards, node)) for node in range(1, len(parents))
    }
    same(forms.arpo(parents, rewards, kind="hard"), hard)


def test_vineppo() -> None:
    same(forms.vineppo([0.25, 0.5, 1.0], 1.0), [0.25, 0.5, 0.0])
    same(forms.vineppo([0.25], 0.0), [-0.25])
    assert forms.vineppo([], 1.0) == []
    values = [random.Random(3).random() for _ in range(9)]
    assert sum(forms.vineppo(values, 0.7)) == pytest.approx(0.7 - values[0])  # it telescopes


def test_by_hand() -> None:
    """The small tree of two, worked out on paper."""
    same(forms.spo(PARENTS, REWARDS), {1: -1 / 12, 2: 1 / 12, 3: 0.5, 4: -0.5, 5: 0.0, 6: -2 / 3, 7: 1 / 3, 8: 1 / 3})
    same(forms.treepo(PARENTS, REWARDS)[3], (0.5 + 0.4) / 2)
    same(forms.treepo(PARENTS, REWARDS)[6], (-2 / 3 - 2 / 3 - 0.6) / 3)
    assert forms.leaves_below(PARENTS, REWARDS)[5] == [6, 7, 8]
    assert forms.ancestors(PARENTS, 6) == [5, 2, 0]


def test_groups_that_say_nothing_give_zero() -> None:
    assert forms.grpo([0.7]) == [0.0]
    assert forms.grpo([0.7], singleton="raw") == [0.7]  # what the released code does
    whole = forms.grpo([0.0, 0.0, 1.0])[2]
    assert forms.tree_grpo([0.0, 0.0, 1.0], [0, 0, 1])[2] == pytest.approx(whole)
    assert forms.tree_grpo([0.0, 0.0, 1.0], [0, 0, 1], singleton="raw")[2] == pytest.approx(whole + 1.0)
    assert forms.grpo([0.1 + 0.2, 0.3]) == [0.0, 0.0]  # equal but for rounding
    assert forms.grpo([]) == []
    chain = [-1, 0, 1, 2]
    assert forms.treepo(chain, {3: 1.0}) == {3: 0.0}
    assert forms.treerl(chain, {3: 1.0}) == {1: 0.0, 2: 0.0, 3: 0.0}
    assert forms.spo(chain, {3: 1.0}, norm="grpo") == {1: 0.0, 2: 0.0, 3: 0.0}


def test_wrong_options_say_what_is_known() -> None:
    with pytest.raises(BadRequest):
        forms.treepo(PARENTS, REWARDS, weight="x")
    with pytest.raises(BadRequest):
        forms.spo(PARENTS, REWARDS, norm="x")
    with pytest.raises(BadRequest):
        forms.arpo(PARENTS, REWARDS, kind="x")
