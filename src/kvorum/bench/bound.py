"""A bound that kvorum has set itself, beside what was measured: the same form in every report of a bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from rich.table import Table

from kvorum.bench.tables import figures_table
from kvorum.jsontypes import JsonObject

Figures: TypeAlias = "Sequence[tuple[float | None, str]]"
"""What was measured, and where."""

SMALL, CODER = "smollm2-135m", "qwen2.5-coder-1.5b"
"""The models that bounds of their own were set for."""


@dataclass(frozen=True, slots=True)
class Bound:
    """``figure``: the worst that was measured, None where nothing was, found at ``where``. ``limit``: at least that if
    ``least``, at most otherwise. ``other``: what does as well, where this one is not kept."""

    what: str
    limit: float
    least: bool
    unit: str
    figure: float | None
    where: str
    other: Bound | None = None

    @classmethod
    def worst(cls, what: str, limit: float, figures: Figures, *, least: bool = False, unit: str = "") -> Bound:
        """The bound beside the worst of several figures."""
        known = [(figure, where) for figure, where in figures if figure is not None]
        figure, where = (min if least else max)(known, default=(None, ""))
        return cls(what, limit, least, unit, figure, where)

    @property
    def met(self) -> bool | None:
        """Whether the figure keeps the bound, or that of ``other`` keeps its own; None where it is not known."""
        found = [self._alone, *([] if self.other is None else [self.other.met])]
        if True in found:
            return True
        return None if None in found else False

    @property
    def _alone(self) -> bool | None:
        if self.figure is None:
            return None
        return self.figure >= self.limit if self.least else self.figure <= self.limit

    @property
    def asks(self) -> str:
        """The limit in words."""
        alone = f"at {'least' if self.least else 'most'} {self.limit:g}{self.unit}"
        return alone if self.other is None else f"{alone} or {self.other.limit:g}{self.other.unit}"

    @property
    def says(self) -> str:
        """The figure in words."""
        both = [self, *([] if self.other is None else [self.other])]
        return ", ".join(f"{one.figure:.2f}{one.unit}" for one in both if one.figure is not None)


def bounds_json(found: Sequence[Bound]) -> list[JsonObject]:
    """All of them, each with whether it is met."""
    return [asdict(bound) | {"met": bound.met} for bound in found]


def bounds_table(title: str, found: Sequence[Bound]) -> Table:
    """A row for each."""
    table = figures_table(title, "", "bound", "measured")
    table.add_column("")
    words = {True: "met", False: "not met", None: "not measured"}
    for bound in found:
        met = words[bound.met] + (f", {bound.where}" if bound.where else "")
        table.add_row(bound.what, bound.asks, bound.says, met)
    return table
