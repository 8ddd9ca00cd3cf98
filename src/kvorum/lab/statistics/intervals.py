"""Intervals and paired tests, by statsmodels and scipy. Everything is drawn over items: runs on one item are not free
of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kvorum.lab import need

DRAWS = 2000
"""How many resamples a bootstrap draws."""
CLUSTERED_DRAWS = 5000
"""How many one of groups draws."""

Values: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the ends of its 95% interval, and of how many items."""

    value: float
    low: float
    high: float
    n: int


def wilson(solved: int, n: int) -> Interval:
    """A share, with Wilson's score interval."""
    low, high = need("statsmodels.stats.proportion").proportion_confint(solved, n, method="wilson")
    return Interval(solved / n, float(low), float(high), n)


def mean(values: Sequence[float], seed: int = 0) -> Interval:
    """A mean, with the percentile bootstrap over ``values`` (one for each item)."""
    at = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(at, at, at, len(values))
    draw, sample = np.random.default_rng(seed), (np.asarray(values, dtype=float),)
    found = need("scipy.stats").bootstrap(sample, np.mean, n_resamples=DRAWS, method="percentile", rng=draw)
    ends = found.confidence_interval
    return Interval(at, float(ends.low), float(ends.high), len(values))


def clustered(groups: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """The mean of all values, with the percentile bootstrap that draws groups and then values of each: those of one
    group are alike."""
    draw, given = np.random.default_rng(seed), [np.asarray(group, dtype=float) for group in groups]
    found = np.empty(CLUSTERED_DRAWS)
    for at in range(CLUSTERED_DRAWS):
        chosen = draw.integers(len(given), size=len(given))
        found[at] = np.concatenate([draw.choice(given[one], len(given[one])) for one in chosen]).mean()
    low, high = np.quantile(found, (0.025, 0.975))
    everything = np.concatenate(given)
    return Interval(float(everything.mean()), float(low), float(high), len(everything))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms on the same items: the mean ``difference`` of scores, and p values.

    ``mcnemar``: McNemar's exact one, of solved. ``equivalence``: that the difference lies within the margin
    (``equivalence``). ``p``: of the sign-flip test that the mean difference is 0; exact up to 12 items.
    """

    difference: Interval
    only_one: int
    only_other: int
    mcnemar: float
    equivalence: float | None
    p: float | None


def pair(
    one: Sequence[float], other: Sequence[float], solved: Sequence[bool], solved_other: Sequence[bool], margin: float
) -> Pair:
    """``one`` minus ``other``: a value of each item, in one order. ``solved``: of single runs, in one order."""
    a, b = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    first = sum(x and not y for x, y in zip(solved, solved_other, strict=True))
    second = sum(y and not x for x, y in zip(solved, solved_other, strict=True))
    mcnemar = need("statsmodels.stats.contingency_tables").mcnemar([[0, first], [second, 0]], exact=True)
    return Pair(
        difference=mean(list(a - b)),
        only_one=first,
        only_other=second,
        mcnemar=float(mcnemar.pvalue),
        equivalence=equivalence(a - b, margin),
        p=sign_flips(a - b),
    )


def equivalence(difference: Values, margin: float) -> float | None:
    """The larger p value of two one-sided t tests that the mean of ``difference`` lies within the margin; None for
    under 3 items, and where all differences are the same."""
    if len(difference) < 3 or np.ptp(difference) == 0:  # without any spread the t test is not defined
        return None
    return float(need("statsmodels.stats.weightstats").DescrStatsW(difference).ttost_mean(-margin, margin)[0])


def sign_flips(difference: Values) -> float | None:
    """The p value of the sign-flip test that the mean of ``difference``, one for each item, is 0."""
    if len(difference) < 2:
        return None
    if not np.any(difference):
        return 1.0
    found = need("scipy.stats").permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=4999, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def corrected(chances: Sequence[float | None]) -> list[float | None]:
    """p values, each corrected by Holm for how many there are; where there is none there is none."""
    better = iter(holm([p for p in chances if p is not None]))
    return [None if p is None else next(better) for p in chances]


def holm(chances: Sequence[float]) -> list[float]:
    """p values, corrected by Holm for how many there are."""
    if not chances:
        return []
    return [float(p) for p in need("statsmodels.stats.multitest").multipletests(list(chances), method="holm")[1]]
