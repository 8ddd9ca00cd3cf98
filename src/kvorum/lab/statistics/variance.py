"""What explains the scores: the variance decomposition of a study's table.

Two levels. Means of configurations (all items of a task together): R² of ordinary least squares, shared out among the
factors without an order (Shapley values, also called LMG), with intervals by a bootstrap over items. Single runs: a
logistic mixed model with random tasks and items. Realised tokens are not assigned, so the assigned budget is their
instrument.

The R² of means is larger than that of runs, since averaging takes the noise away: never compare one with the other.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from kvorum.errors import BadRequest
from kvorum.lab import need
from kvorum.lab.statistics.intervals import Interval

if TYPE_CHECKING:
    from pandas import DataFrame

Columns: TypeAlias = npt.NDArray[np.float64]

FACTORS = ("tokens", "program", "channel", "workers", "model", "task")
_CONFIG = ["task", "model", "program", "channel", "match", "team", "workers", "budget"]


@dataclass
class Decomposition:
    """``shares`` sum up to ``r2``. ``slope``: score per doubling of tokens, plain; ``instrumented``: of the tokens that
    the assigned budget moved. ``left_out``: R² on each task by a fit on all others. ``mixed``: of single runs."""

    configurations: int
    items: int
    runs: int
    r2: Interval
    tokens_alone: Interval
    shares: dict[str, Interval]
    slope: Interval
    instrumented: Interval | None = None
    left_out: dict[str, float] = field(default_factory=dict)
    mixed: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def shapley(y: Columns, factors: dict[str, Columns]) -> dict[str, float]:
    """Each factor's share of R²: its gain in R², averaged over all orders in which the factors can be taken in.

    ``y`` ``[n]``; each factor ``[n, columns]``. The shares sum up to the R² of all factors together.
    """

    @cache
    def r2(chosen: frozenset[str]) -> float:
        return _r2(y, [factors[name] for name in factors if name in chosen])

    found = dict.fromkeys(factors, 0.0)
    for name in factors:
        others = [other for other in factors if other != name]
        for size in range(len(factors)):
            for before in combinations(others, size):
                gain = r2(frozenset([*before, name])) - r2(frozenset(before))
                found[name] += gain / (len(factors) * math.comb(len(others), size))
    return found


def _r2(y: Columns, factors: Sequence[Columns]) -> float:
    """R² of ordinary least squares with a constant."""
    x = np.column_stack([np.ones(len(y)), *factors])
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return 1 - float(rest @ rest) / float(((y - y.mean()) ** 2).sum())


def decompose(table: DataFrame, draws: int = 200, seed: int = 0, *, mixed: bool = True) -> Decomposition:
    """Take a study's table (a DataFrame with a row per run) apart; ``mixed``: with the model of single runs.

    Raises:
        BadRequest: too few configurations, or nothing varies.
    """
    table = table.copy()
    table["tokens"] = np.log2(table["decode_equivalents"].clip(lower=1))
    table["assigned"] = np.log2(table["budget"] * np.where(table["match"] == "tokens", table["team"], 1))
    means = _means(table)
    if len(means) < 4 or means["score"].std(ddof=0) < 1e-12:
        raise BadRequest(
            f"The table has {len(means)} configurations, whose mean scores vary by {means['score'].std(ddof=0):.2g}: "
            "there is nothing to take apart."
        )
    whole, notes = _once(means), []
    draw = np.random.default_rng(seed)
    items = sorted(table["item"].unique())
    by_item = {item: table[table["item"] == item] for item in items}
    drawn: list[dict[str, float]] = []
    for _ in range(draws if len(items) > 1 else 0):
        rows = need("pandas").concat([by_item[item] for item in draw.choice(items, len(items))])
        again = _means(rows)
        if again["score"].std(ddof=0) > 1e-12:
            drawn.append(_once(again))
    if len(items) < 2:
        notes.append("There is one item: no intervals.")
    if "instrumented" not in whole:
        notes.append("All runs of an arm had one budget: there is no instrument for tokens.")
    low, high = need("pandas").DataFrame(drawn, columns=list(whole), dtype=float).quantile([0.025, 0.975]).to_numpy()
    ends = zip(whole, low, high, strict=True)
    found = {name: Interval(whole[name], float(a), float(b), len(items)) for name, a, b in ends}
    return Decomposition(
        configurations=len(means),
        items=len(items),
        runs=len(table),
        r2=found["r2"],
        tokens_alone=found["tokens alone"],
        shares={name: found[name] for name in FACTORS if name in found},
        slope=found["slope"],
        instrumented=found.get("instrumented"),
        left_out=_left_out(means),
        mixed=_mixed(table, notes) if mixed else {},
        notes=notes,
    )


def _means(table: DataFrame) -> DataFrame:
    return table.groupby(_CONFIG, as_index=False, sort=True)[["score", "tokens", "assigned"]].mean()


def _design(means: DataFrame, names: Sequence[str] = FACTORS) -> dict[str, Columns]:
    """Columns of each factor that varies: log2 tokens as it is, the others as dummies."""
    dummies, words = need("pandas").get_dummies, means.astype({name: str for name in names if name != "tokens"})
    varying = [name for name in names if words[name].nunique() > 1]
    return {name: dummies(words[[name]], drop_first=True).to_numpy(float) for name in varying}


def _independent(columns: Sequence[Columns]) -> Columns:
    """The columns side by side, without those that others before them determine: arms are rarely a full crossing."""
    whole = np.column_stack(columns)
    kept: list[int] = []
    for at in range(whole.shape[1]):
        if np.linalg.matrix_rank(whole[:, [*kept, at]]) > len(kept):
            kept.append(at)
    return whole[:, kept]


def _once(means: DataFrame) -> dict[str, float]:
    y = means["score"].to_numpy(float)
    design = _design(means)
    found = shapley(y, design)
    found["r2"] = sum(found.values())
    tokens = means[["tokens"]].to_numpy(float)
    found["tokens alone"] = _r2(y, [tokens])
    # a solo worker at equal tokens has another budget than its team by design: both are assigned
    others = [columns for name, columns in design.items() if name != "tokens"]
    rest = _independent([np.ones(len(y)), *others])
    found["slope"] = float(np.linalg.lstsq(np.column_stack([tokens, rest]), y, rcond=None)[0][0])
    assigned = means[["assigned"]].to_numpy(float)
    left = assigned[:, 0] - rest @ np.linalg.lstsq(rest, assigned[:, 0], rcond=None)[0]
    free = np.linalg.matrix_rank(np.column_stack([tokens, rest])) > rest.shape[1]
    if float(np.abs(left).max()) > 1e-6 and free:
        gmm = need("statsmodels.sandbox.regression.gmm")
        two = gmm.IV2SLS(y, np.column_stack([tokens, rest]), np.column_stack([assigned, rest])).fit()
        found["instrumented"] = float(two.params[0])
    return found


def _left_out(means: DataFrame) -> dict[str, float]:
    """R² on a task of a fit on all others, without a task factor; far below 0 where nothing carries over."""
    found = {}
    names = [name for name in FACTORS if name != "task"]
    for task in sorted(means["task"].unique()) if means["task"].nunique() > 1 else []:
        x = _independent([np.ones(len(means)), *_design(means, names).values()])
        y, out = means["score"].to_numpy(float), (means["task"] == task).to_numpy()
        spread = float(((y[out] - y[out].mean()) ** 2).sum())
        if spread > 1e-12:
            fit = np.linalg.lstsq(x[~out], y[~out], rcond=None)[0]
            found[str(task)] = 1 - float(((y[out] - x[out] @ fit) ** 2).sum()) / spread
    return found


def _mixed(table: DataFrame, notes: list[str]) -> dict[str, float]:
    """Solved ~ factors + (1 | task) + (1 | item of a task) by run, fitted by variational Bayes.

    R² of the fixed part, and of it with the random ones, on the logistic scale; the standard deviations of both. A task
    is one of the factors elsewhere; here it is drawn, as an item is. Few tasks say little of their deviation.
    """
    y = table["solved"].to_numpy(float)
    if not 0 < y.mean() < 1:
        notes.append("All runs are solved, or none: no logistic mixed model.")
        return {}
    design = _design(table, [name for name in FACTORS if name != "task"])
    if not design:
        return {}
    x = _independent([np.ones(len(y)), *design.values()])
    dummies, task = need("pandas").get_dummies, table["task"].astype(str)
    drawn = {"items": dummies(task + "/" + table["item"].astype(str)).to_numpy(float)}
    if task.nunique() > 1:
        drawn["tasks"] = dummies(task).to_numpy(float)
        if task.nunique() < 5:
            notes.append(f"The deviation of tasks is of {task.nunique()} tasks: hardly more than a guess.")
    kinds = np.repeat(np.arange(len(drawn)), [columns.shape[1] for columns in drawn.values()])
    model = need("statsmodels.genmod.bayes_mixed_glm").BinomialBayesMixedGLM(
        y, x, np.column_stack(list(drawn.values())), kinds, vcp_p=1.0, fe_p=2.0
    )
    start = np.full(model.k_fep + model.k_vcp + model.k_vc, math.exp(-0.5))  # left out, it is drawn anew in every call
    with warnings.catch_warnings():
        warnings.simplefilter("error", need("statsmodels.tools.sm_exceptions").ConvergenceWarning)
        try:
            fit = model.fit_vb(sd=start)
        except Warning:
            notes.append("The mixed model of single runs did not converge, so it is left out.")
            return {}
    fixed, random = float(np.var(x @ fit.fe_mean)), [float(np.exp(sd) ** 2) for sd in fit.vcp_mean]
    total = fixed + sum(random) + math.pi**2 / 3
    found = {"marginal R2": fixed / total, "conditional R2": (fixed + sum(random)) / total}
    return found | {f"sd of {name}": math.sqrt(one) for name, one in zip(drawn, random, strict=True)}
