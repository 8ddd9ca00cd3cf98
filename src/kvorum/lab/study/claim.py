"""A claim of a study, that one arm does better than another: said before the runs, with how much would count.

claims:
  - say: Workers that see each other's words give both numbers more often
    first: hogwild/cache        # arms, as the table calls them
    second: hogwild/none
    measure: solved             # a column of the table (score)
    expects: more               # or less, as of ticks and tokens (more)
    smallest: 0.1               # the smallest mean difference worth knowing (0.1)
    deviation: 0.5              # of differences over items, as expected; how many items it takes follows (0.5)
    looks: 3                    # how often it may be looked at on the way (5)
    tasks: [facts]              # by their labels (all)
    teams: [4]                  # team sizes (all)
    explored: true              # formed after some of these runs were seen (false)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.lab.study.cell import Cell
from kvorum.lab.study.study_file import checked
from kvorum.runs.annotations import Help, PositiveInt, parameters_of
from kvorum.wording import check_known


@dataclass(frozen=True)
class Claim:
    """What a study claims, as its file says it. ``tasks`` and ``teams``: empty for all."""

    say: str = ""
    first: str = ""
    second: str = ""
    measure: str = "score"
    expects: Literal["more", "less"] = "more"
    smallest: Annotated[float, Help(low=1e-6)] = 0.1
    deviation: Annotated[float, Help(low=1e-6)] = 0.5
    looks: Annotated[int, Help(low=1, high=10)] = 5
    tasks: Sequence[str] = ()
    teams: Sequence[PositiveInt] = ()
    explored: bool = False

    @classmethod
    def of(cls, asked: Json) -> Claim:
        """From an entry of a study's ``claims``. Raises BadRequest, UnknownName: what is wrong."""
        if not isinstance(asked, Mapping):
            raise BadRequest(f"A claim must be a mapping, not {asked!r}.")
        for key in asked:
            check_known("key", key, [setting.name for setting in _SETTINGS], owner="A claim")
        settings = checked(_SETTINGS, asked)
        claim = cls(**settings)
        for name in ("say", "first", "second"):
            if not settings[name].strip():
                raise BadRequest(f"A claim does not say its {name}.")
        if claim.first == claim.second:
            raise BadRequest(f"The claim {claim.say!r} compares {claim.first} with itself.")
        return claim

    def check(self, cells: Sequence[Cell]) -> None:
        """Raises UnknownName: the study has no such arm, task or team size."""
        for arm in (self.first, self.second):
            check_known("arm", arm, list(dict.fromkeys(cell.arm for cell in cells)), owner="The study")
        for task in self.tasks:
            check_known("task", task, list(dict.fromkeys(cell.task for cell in cells)), owner="The study")
        for team in self.teams:
            check_known("team of", str(team), sorted({str(cell.team) for cell in cells}), owner="The study")


_SETTINGS = parameters_of(Claim.__init__, "a claim")
