"""A cell of a study: one run of a program over one of the channels that it declares, and the key of everything that
determines it.

A channel is how the workers' words pass between them. The controls of a shared cache are channels too: the same team
whose blocks are hidden ("none"), another problem's ("mismatched"), "zeroed", "random", or encoded anew ("text").
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from kvorum.jsontypes import Json, JsonObject
from kvorum.lab.measure.injected_fact import InjectedFact
from kvorum.programs import REGISTRY, find
from kvorum.runs.program import Program
from kvorum.runs.worker import choose_names
from kvorum.store.study_records import record_key
from kvorum.tasks import families
from kvorum.tasks.item import Item
from kvorum.wording import check_known

MISMATCHED = "mismatched"
"""The channel that shows a team on another problem, which its program takes as ``other`` and ``other_private``."""

FINAL_TOKENS = 32
"""The most tokens of a forced answer, the same for every arm."""


def in_study(name: str) -> Program:
    """A program that can stand in a study: one with channels. Raises UnknownName."""
    known = [program.name for program in REGISTRY.values() if program.channels]
    check_known("program", name, known, owner="A study")
    return find(name)


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
    label: str = ""
    """What the arm is called instead of its channel."""

    @property
    def alone(self) -> bool:
        """Whether one worker works in the team's place and is given everything that the team is."""
        return find(self.program).most_workers == 1

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
        """The arm's name: program, then its label, the channel or what it is equal in; of one worker the channel where
        it has several."""
        if self.label:
            return f"{self.program}/{self.label}"
        by_match = self.alone and len(find(self.program).channels) == 1
        return f"{self.program}@{self.match}" if by_match else f"{self.program}/{self.channel}"

    @property
    def key(self) -> str:
        """A hash of everything that determines the run; an option that is not used has no part in it."""
        determines = asdict(self)
        for name in ("inject", "label"):
            if not determines[name]:
                del determines[name]
        return record_key(determines)

    def make(self, item: int | None = None) -> Item:
        """The cell's item, or another one of its task."""
        return families.make(self.family, self.item if item is None else item, self.team, **self.options)

    def fits(self, item: Item) -> bool:
        """Whether the program can be given the item. One worker alone can be given any problem."""
        if find(self.program).own_tasks:
            return self.program in item.given
        return self.alone or not item.programs or self.program in item.programs

    def injected_fact(self, item: Item) -> InjectedFact | None:
        """What one worker is told while they work; one that works alone is told it in another one's stead."""
        if not self.inject:
            return None
        names = choose_names(self.team, 64)
        fact = InjectedFact.of(self.inject, item, names)
        return replace(fact, worker=names[0]) if self.alone else fact

    def parameters(self, item: Item) -> dict[str, Json]:
        """The program's parameters with that item; where blocks are mismatched they are those of another one."""
        program = find(self.program)
        params = dict(program.channels[self.channel])
        if program.name in item.given:
            params |= item.given[program.name]
        elif "final_tokens" in program.params:
            params["final_tokens"] = FINAL_TOKENS
        if self.channel == MISMATCHED:
            other = self.make(self.item + 10_000)
            private = dict(other.private)
            by_name = program.parameter("other_private").kind == "mapping"
            params |= {"other": other.prompt, "other_private": private if by_name else list(private.values())}
        return params | dict(self.params)
