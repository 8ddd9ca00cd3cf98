"""A cell of a study: one run, and the key of everything that determines it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from kvorum.jsontypes import Json, JsonObject
from kvorum.lab.measure.injected_fact import InjectedFact
from kvorum.lab.study.arms import is_alone
from kvorum.runs.worker import choose_names
from kvorum.tasks import families
from kvorum.tasks.item import Item


@dataclass(frozen=True, slots=True)
class Cell:
    """One run. ``team``: the size of the team it belongs to or is compared with; ``budget``: in ticks, of a team."""

    model: str
    task: str
    family: str
    options: JsonObject
    item: int
    program: str
    channel: str
    match: str
    team: int
    budget: int
    seed: int
    temperature: float
    params: JsonObject
    inject: Json = False

    @property
    def alone(self) -> bool:
        """Whether one worker works in the team's place and is given everything that the team is."""
        return is_alone(self.program)

    @property
    def workers(self) -> int:
        """How many workers the run has."""
        return 1 if self.alone else self.team

    @property
    def ticks(self) -> int:
        """Ticks in which they may write."""
        return self.budget * (self.team if self.match == "tokens" else 1)

    @property
    def arm(self) -> str:
        """The arm's name: program, then the channel or what it is equal in."""
        return f"{self.program}@{self.match}" if self.alone else f"{self.program}/{self.channel}"

    @property
    def key(self) -> str:
        """A hash of everything that determines the run; an option that is not used has no part in it."""
        determines = asdict(self)
        if not self.inject:
            del determines["inject"]
        text = json.dumps(determines, sort_keys=True, default=dict)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def injected_fact(self, item: Item) -> InjectedFact | None:
        """What one worker is told while they work; one that works alone is told it in another one's stead."""
        if not self.inject:
            return None
        names = choose_names(self.team, 64)
        fact = InjectedFact.of(self.inject, item, names)
        return replace(fact, worker=names[0]) if self.alone else fact

    def make(self, item: int | None = None) -> Item:
        """The cell's item, or another one of its task."""
        return families.make(self.family, self.item if item is None else item, self.team, **self.options)
