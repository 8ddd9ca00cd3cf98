"""When an answer begins in one arm, as a share of what another arm takes for the same item from beginning to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvorum.lab.statistics.compare import Place, runs_by_place
from kvorum.lab.statistics.intervals import Interval, mean, wilson
from kvorum.programs import REGISTRY

if TYPE_CHECKING:
    from pandas import DataFrame

SOON = 0.1
"""An answer that begins within this share of the other arm's ticks begins soon."""


@dataclass(frozen=True)
class Beginning:
    """``word``, ``right``: the tick of the first word of ``one``, and of its first right sentence, over all ticks of
    ``other`` on the same item, over the items that have such a word or sentence, None where none has. ``soon``: of all
    items, the share whose first right sentence is there within ``SOON``; where there is none it is not.
    """

    where: Place
    one: str
    other: str
    word: Interval | None
    right: Interval | None
    soon: Interval


def beginnings(table: DataFrame) -> list[Beginning]:
    """Each program's real channel against its other arms, where one worker of it writes the answer."""
    if not {"first_word", "first_right", "ticks"} <= {*table.columns}:
        return []
    found: list[Beginning] = []
    for where, runs in runs_by_place(table).items():
        for one in [f"{name}/{program.real}" for name, program in REGISTRY.items() if program.real]:
            if one not in runs or runs[one]["first_word"].isna().all():
                continue
            begins = runs[one]
            for other, rows in runs.items():
                both = rows.index.intersection(begins.index)
                if other == one or rows["program"].iloc[0] != begins["program"].iloc[0] or not len(both):
                    continue
                shares = {
                    name: (begins.loc[both, name] / rows.loc[both, "ticks"]).groupby("item").mean()
                    for name in ("first_word", "first_right")
                }
                word, right = (mean(list(share.dropna())) if share.notna().any() else None for share in shares.values())
                soon = wilson(int((shares["first_right"] <= SOON).sum()), len(shares["first_right"]))
                found.append(Beginning(where, one, other, word, right, soon))
    return found
