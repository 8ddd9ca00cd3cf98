"""The decomposition of a study's variance, as pieces of a page."""

from __future__ import annotations

from collections.abc import Mapping

from kvorum.lab.report.page import Piece, Table
from kvorum.lab.statistics.intervals import Interval
from kvorum.lab.statistics.variance import Decomposition


def pieces(found: Decomposition) -> list[Piece]:
    """Tables in words that say what they are of."""
    shares = {f"share of {'log tokens' if name == 'tokens' else name}": share for name, share in found.shares.items()}
    slopes = {"least squares": found.slope, "instrumented by the assigned budget": found.instrumented}
    tables: list[Piece] = [
        f"R² of the mean scores of {found.configurations} configurations, {found.items} items, {found.runs} runs; 95% "
        "intervals by a bootstrap over items. Shares are order-free (Shapley) and sum up to the whole.",
        _intervals(["", "R²", "95%"], {"log tokens alone": found.tokens_alone, "all factors": found.r2, **shares}),
        _intervals(["score per doubling of tokens", "", "95%"], slopes),
    ]
    if found.left_out:
        rows = [[task, f"{value:.2f}"] for task, value in found.left_out.items()]
        tables.append(Table(["task left out", "R² on it by a fit on the others"], rows))
    if found.mixed:
        rows = [[name, f"{value:.3f}"] for name, value in found.mixed.items()]
        tables.append(Table(["single runs, logistic mixed model of solved", ""], rows))
    return [*tables, *found.notes]


def _intervals(head: list[str], values: Mapping[str, Interval | None]) -> Table:
    known = {name: value for name, value in values.items() if value is not None}
    return Table(head, [[name, f"{v.value:.3f}", f"{v.low:.3f} to {v.high:.3f}"] for name, v in known.items()])
