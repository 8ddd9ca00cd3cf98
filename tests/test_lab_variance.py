"""The variance decomposition and the intervals, on simulated data whose truth is known.

Covers: planted shares (tokens only, program only, a mixture) lie within the stated intervals; shares sum up to R² and
do not depend on the order; the instrument finds the slope where realised tokens are driven by difficulty; a task unlike
the others is not predicted; intervals and tests against closed forms and known cases. Not covered: real runs.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kvorum.errors import BadRequest
from kvorum.lab.report.page import as_markdown
from kvorum.lab.report.variance import pieces
from kvorum.lab.statistics import intervals
from kvorum.lab.statistics.variance import decompose, shapley

BUDGETS = (32, 64, 128, 256)
ARMS = (("solo", "none", 1), ("vote", "none", 4), ("hogwild", "none", 4), ("hogwild", "cache", 4))


def simulate(
    tokens: float = 0.0,
    program: float = 0.0,
    noise: float = 0.3,
    items: int = 30,
    hardness: float = 0.0,
    seed: int = 0,
    tasks: tuple[str, ...] = ("a", "b"),
) -> Any:
    """A table: score = ``tokens`` per doubling + ``program`` if it is vote + noise of each run.

    ``hardness``: hard items score lower and draw more tokens, so that tokens are no cause of what goes with them.
    """
    draw = np.random.default_rng(seed)
    hard = draw.normal(size=items)
    rows = []
    for task, (item, budget, (name, channel, team)) in itertools.product(
        tasks, itertools.product(range(items), BUDGETS, ARMS)
    ):
        spent = math.log2(budget) + hardness * hard[item] + draw.normal(0, 0.05)
        score = tokens * spent + program * (name == "vote") - 2 * hardness * hard[item] + draw.normal(0, noise)
        rows.append(
            {
                "model": "m",
                "task": task,
                "item": item,
                "program": name,
                "channel": channel,
                "match": "ticks",
                "team": team,
                "workers": team,
                "budget": budget,
                "decode_equivalents": 2**spent,
                "score": score,
                "solved": int(score > 0.5),
            }
        )
    return pd.DataFrame(rows)


def test_tokens_only() -> None:
    found = decompose(simulate(tokens=0.2), draws=100, mixed=False)
    assert found.r2.value > 0.9
    assert found.shares["tokens"].value / found.r2.value > 0.9
    assert found.tokens_alone.value == pytest.approx(found.shares["tokens"].value, abs=0.05)
    assert found.slope is not None
    assert found.slope.low < 0.2 < found.slope.high
    assert found.instrumented is not None
    assert found.instrumented.low < 0.2 < found.instrumented.high


def test_program_only() -> None:
    found = decompose(simulate(program=0.5), draws=100, mixed=False)
    factors = found.shares
    who = sum(factors[name].value for name in ("program", "channel", "workers"))
    assert who / found.r2.value > 0.9
    assert factors["program"].value == max(share.value for share in factors.values())
    assert factors["tokens"].value < 0.05
    assert found.slope is not None
    assert found.slope.low < 0 < found.slope.high


def test_a_mixture() -> None:
    """The variance of each planted part over the design, against its share. Averaged over 30 items, noise is small."""
    tokens, program = 0.1, 0.3
    by_tokens = tokens**2 * np.var(np.log2(BUDGETS))
    by_program = program**2 * (1 / 4) * (3 / 4)
    total = by_tokens + by_program + 0.3**2 / 30
    inside = 0
    for seed in range(4):
        found = decompose(simulate(tokens=tokens, program=program, seed=seed), draws=50, seed=seed, mixed=False)
        share = found.shares["tokens"]
        inside += int(share.low - 0.02 <= by_tokens / total <= share.high + 0.02)
        who = sum(found.shares[name].value for name in ("program", "channel", "workers"))
        assert who == pytest.approx(by_program / total, abs=0.12)
        assert sum(one.value for one in found.shares.values()) == pytest.approx(found.r2.value)
    assert inside >= 3


def test_shares_have_no_order_and_sum_up() -> None:
    draw = np.random.default_rng(1)
    x = draw.normal(size=(60, 3))
    x[:, 1] += x[:, 0]  # correlated: what "explains" depends on the order, a Shapley share does not
    y = x @ [1.0, 1.0, 0.0] + draw.normal(size=60)
    one = shapley(y, {"a": x[:, :1], "b": x[:, 1:2], "c": x[:, 2:]})
    other = shapley(y, {"c": x[:, 2:], "b": x[:, 1:2], "a": x[:, :1]})
    assert one == pytest.approx(other)
    whole = np.column_stack([np.ones(60), x])
    rest = y - whole @ np.linalg.lstsq(whole, y, rcond=None)[0]
    assert sum(one.values()) == pytest.approx(1 - rest.var() / y.var())
    free = np.array(list(itertools.product([-1, 1], repeat=3)), dtype=float)
    planted = shapley(free @ [3.0, 2.0, 0.0], {"a": free[:, :1], "b": free[:, 1:2], "c": free[:, 2:]})
    assert planted == pytest.approx({"a": 9 / 13, "b": 4 / 13, "c": 0.0})


def test_the_instrument_is_not_fooled_by_hard_items() -> None:
    """Hard items draw more tokens and score lower: by run, tokens seem to hurt; the assigned budget knows better."""
    table = simulate(tokens=0.1, hardness=0.8, noise=0.05, items=40)
    naive = np.polyfit(np.log2(table["decode_equivalents"]), table["score"], 1)[0]
    assert naive < 0.0
    found = decompose(table, draws=60, mixed=False)
    assert found.instrumented is not None
    assert found.instrumented.value == pytest.approx(0.1, abs=0.02)


def test_a_task_unlike_the_others_is_not_predicted() -> None:
    good = simulate(tokens=0.1, seed=1, tasks=("a", "b", "c"), noise=0.05)
    odd = good.copy()
    odd.loc[odd["task"] == "c", "score"] = 1 - odd["score"]
    alike = decompose(good, draws=0, mixed=False).left_out
    assert min(alike.values()) > 0.9
    assert decompose(odd, draws=0, mixed=False).left_out["c"] < 0


def test_mixed_model_of_runs() -> None:
    draw = np.random.default_rng(3)
    table = simulate(items=40)
    item = draw.normal(0, 2.0, size=40)
    table["solved"] = (draw.random(len(table)) < 1 / (1 + np.exp(-item[table["item"]]))).astype(int)
    found = decompose(table, draws=0).mixed
    assert found["marginal R2"] < 0.05
    assert found["conditional R2"] > 0.35
    assert 1.2 < found["sd of items"] < 3.0
    assert found["sd of tasks"] < 0.7, "the same items in both tasks: a task has no easiness of its own"
    flat = simulate(items=5)
    flat["solved"] = 0
    assert decompose(flat, draws=0).mixed == {}


@pytest.mark.parametrize(("of_items", "of_tasks"), [(1.5, 0.3), (0.3, 1.5), (1.2, 1.2)])
def test_mixed_model_tells_tasks_from_items(of_items: float, of_tasks: float) -> None:
    """Twelve tasks of twelve items; each draws its easiness from the planted deviation."""
    draw = np.random.default_rng(5)
    tasks = tuple("abcdefghijkl")
    table = simulate(items=12, tasks=tasks)
    easy = {task: draw.normal(0, 1) for task in tasks}
    scale = np.std(list(easy.values()))  # the planted deviation is that of the tasks drawn
    item = {(task, at): draw.normal(0, of_items) for task in tasks for at in range(12)}
    logit = [of_tasks * easy[t] / scale + item[t, i] for t, i in zip(table["task"], table["item"], strict=True)]
    table["solved"] = (draw.random(len(table)) < 1 / (1 + np.exp(-np.array(logit)))).astype(int)
    found = decompose(table, draws=0)
    assert found.mixed["sd of items"] == pytest.approx(of_items, abs=0.3)
    assert found.mixed["sd of tasks"] == pytest.approx(of_tasks, abs=0.35)
    assert found.mixed["marginal R2"] < 0.05
    share = (of_items**2 + of_tasks**2) / (of_items**2 + of_tasks**2 + math.pi**2 / 3)
    assert found.mixed["conditional R2"] == pytest.approx(share, abs=0.1)
    assert not any("tasks" in note for note in found.notes)
    few = decompose(table[table["task"].isin(["a", "b"])], draws=0)
    assert any("of 2 tasks" in note for note in few.notes)
    assert "sd of tasks" not in decompose(table[table["task"] == "a"], draws=0).mixed


def test_nothing_to_take_apart() -> None:
    table = simulate(items=3)
    table["score"] = 0.5
    with pytest.raises(BadRequest, match="nothing to take apart"):
        decompose(table)
    one = simulate(items=3)
    one["budget"] = 32
    assert any("instrument" in note for note in decompose(one, draws=5, mixed=False).notes)
    assert "order-free" in as_markdown(pieces(decompose(simulate(items=3), draws=5, mixed=False)))


# -- intervals and tests ----------------------------------------------------------------------------------------------


def test_wilson() -> None:
    """Against the closed form, and the half-widths that the literature's sample sizes imply."""
    for solved, n in ((0, 9), (4, 9), (13, 25), (25, 50)):
        z, p = 1.959963984540054, solved / n
        middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        found = intervals.wilson(solved, n)
        assert found.low == pytest.approx(max(0.0, (middle - half) / (1 + z**2 / n)), abs=1e-9)
        assert found.high == pytest.approx((middle + half) / (1 + z**2 / n))
    assert intervals.wilson(25, 50).high - 0.5 == pytest.approx(0.13, abs=0.01)


def test_the_bootstrap_covers() -> None:
    draw = np.random.default_rng(0)
    inside = 0
    for seed in range(60):
        found = intervals.mean(list(draw.normal(1.0, 1.0, size=30)), seed)
        inside += found.low <= 1.0 <= found.high
    assert 50 <= inside <= 60
    assert intervals.mean([0.5, 0.5]).low == 0.5


def test_pairs() -> None:
    one, other = [1.0] * 8 + [0.0] * 4, [0.0] * 12
    found = intervals.pair(one, other, [x == 1 for x in one], [False] * 12, 0.1)
    assert (found.only_one, found.only_other) == (8, 0)
    assert found.mcnemar == pytest.approx(2 * 0.5**8)
    assert found.p == pytest.approx(2 * 0.5**8)
    assert found.difference.value == pytest.approx(2 / 3)
    assert found.equivalence is not None
    assert found.equivalence > 0.9
    draw = np.random.default_rng(0)
    a = draw.random(200)
    same = intervals.pair(list(a), list(a + draw.normal(0, 0.1, 200)), [True] * 200, [True] * 200, 0.1)
    assert same.equivalence is not None
    assert same.equivalence < 1e-6
    assert same.mcnemar == 1.0
    equal = intervals.pair([0.5] * 5, [0.5] * 5, [False] * 5, [False] * 5, 0.1)
    assert (equal.equivalence, equal.p, equal.mcnemar) == (None, 1.0, 1.0)


def test_holm() -> None:
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([]) == []
