"""What a study's table says of its claims: found or not, with the items that it takes to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvorum.errors import BadRequest
from kvorum.lab import need
from kvorum.lab.statistics.factorial import ITEM, complete
from kvorum.lab.statistics.intervals import Interval, Values, equivalence, mean
from kvorum.lab.statistics.sequential import levels, needed
from kvorum.lab.study.claim import Claim

if TYPE_CHECKING:
    from pandas import DataFrame

LEVEL = 0.05
"""How often the claims of a study may be found by chance, all of them together, on each model: they share it in equal
parts."""
FOUND, OPPOSITE, SAME, NOT_FOUND, OPEN = "found", "found the other way", "the same", "not found", "open"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a claim on one model.

    ``difference``: first minus second, of all items that both arms were run on. ``needed``: how many items it takes.
    ``verdict``: found, or found the other way, at the first look that is significant; at the end the same (within the
    smallest difference, by two one-sided t tests) or not found; before that, open. ``at``: the items of the look that
    gave the verdict, of which ``p`` is; where it is open, all items.
    """

    claim: Claim
    model: str
    difference: Interval
    needed: int
    at: int
    p: float
    verdict: str


def outcomes(table: DataFrame, claims: Sequence[Claim]) -> list[Outcome]:
    """Of every claim and model; of those without an item on which both arms were run, nothing.

    Raises:
        BadRequest: the table has no figures in the column that a claim measures.
    """
    return [
        outcome
        for claim in claims
        for model, runs in table.groupby("model", sort=False)
        if (outcome := _outcome(runs, str(model), claim, LEVEL / len(claims))) is not None
    ]


def _outcome(runs: DataFrame, model: str, claim: Claim, level: float) -> Outcome | None:
    values = _differences(runs, claim)
    if not len(values):
        return None
    word, at, p, most = verdict(values, claim, level)
    return Outcome(claim, model, mean(list(values)), most, at, p, word)


def verdict(values: Values, claim: Claim, level: float) -> tuple[str, int, float, int]:
    """What the differences of items, in the order in which they were run, say of a claim that may spend ``level``.

    Returns:
        The verdict, the items of the look that gave it, its p value, and how many items the claim needs.
    """
    most = needed(claim.smallest, claim.deviation, level)
    at, p = 0, 1.0
    for look, enough in enumerate(levels(claim.looks, level), start=1):
        items = -(-most * look // claim.looks)
        if items > len(values):
            return OPEN, len(values), _chance(values), most
        at, p = items, _chance(values[:items])
        if p <= enough:
            more = values[:items].mean() > 0
            return FOUND if more == (claim.expects == "more") else OPPOSITE, at, p, most
    return SAME if _same(values[:at], claim.smallest) else NOT_FOUND, at, p, most


def _differences(runs: DataFrame, claim: Claim) -> Values:
    """First minus second of each item, in the order in which the study begins them; the mean over its seeds."""
    rows = complete(runs, [claim.first, claim.second])
    if claim.tasks:
        rows = rows[rows["task"].isin(list(claim.tasks))]
    if claim.teams:
        rows = rows[rows["team"].isin(list(claim.teams))]
    if claim.measure not in rows or not (need("pandas").api.types.is_numeric_dtype(rows[claim.measure])):
        raise BadRequest(f"The claim {claim.say!r} measures {claim.measure}, which is no column of figures.")
    items = [name for name in ITEM if name != "seed"]
    wide = rows.pivot_table(index=items, columns="arm", values=claim.measure, aggfunc="mean")
    wide = wide.reindex(columns=[claim.first, claim.second]).dropna()  # an arm without any figure has no column
    if not len(wide):
        return np.empty(0)
    wide = wide.sort_index(level=["item", "task"], sort_remaining=True)
    found: Values = (wide[claim.first] - wide[claim.second]).to_numpy(dtype=float)
    return found


def _chance(values: Values) -> float:
    """The p value of a paired t test; where all differences are the same, of as many signs alike."""
    if np.ptp(values) == 0:
        return 1.0 if values[0] == 0 else 2.0 ** (1 - len(values))
    return float(need("scipy.stats").ttest_1samp(values, 0).pvalue)


def _same(values: Values, within: float) -> bool:
    p = equivalence(values, within)
    return bool(abs(values.mean()) < within and (np.ptp(values) == 0 if p is None else p < 0.05))
