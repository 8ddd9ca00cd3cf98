"""Problems for a team on a small graph, whose agents hear only their neighbours: what each begins with, and the rule.

    leader      skill: all name one ticket, the highest; everybody is told its own at every turn
    colouring   both: neighbours end with different colours; what one has is told at the beginning alone
    agreement   both: all name one day with which somebody began; one's own is told at the beginning alone

The floor is an answer at random, or to keep what one began with; the ceiling is the rule, followed by a script. Every
item takes more than to keep what one began with, and the script solves every one in the rounds that there are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvorum.jsontypes import Json
from kvorum.tasks.everyday.kind import object_schema
from kvorum.tasks.ladder.problem import Procedure, read_answer
from kvorum.tasks.scoring import Score, assign, json_answer

ROUNDS = 2
"""How often agents hear each other before they answer: news crosses each of these graphs."""
GRAPHS: dict[str, tuple[tuple[int, int], ...]] = {
    "ring": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "star": ((0, 1), (0, 2), (0, 3)),
    "kite": ((0, 1), (1, 2), (2, 0), (2, 3)),
    "square": ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2)),
}
"""Graphs of four agents, by name: their edges."""
TRIANGLES = ("kite", "square")
"""Those in which three hear each other, so that two colours are not enough."""
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class TeamKind:
    """A kind of problem. ``goal``: what all are told; ``field``: of the typed message; ``request``: what is asked at
    every turn. ``told``: what an agent is told of what it has, at the beginning or (``always``) at every turn."""

    goal: str
    field: str
    request: str
    told: str
    always: bool
    skill: Procedure
    other: Procedure
    options: Sequence[str] = ()


KINDS: dict[str, TeamKind] = {
    "leader": TeamKind(
        "Each of 4 agents has a ticket with a number and hears only its neighbours. After some rounds all must name "
        "the ticket of the same agent: their leader.",
        "ticket",
        "Which ticket has the leader?",
        "Your ticket is {}.",
        True,
        Procedure(
            "electing-a-leader",
            "how agents in a network elect a leader",
            "To elect a leader, write the highest ticket that you know: yours or one that a neighbour wrote.",
        ),
        Procedure(
            "counting-tickets",
            "how agents in a network count their tickets",
            "To count the tickets, write the sum of all that you know: yours and those that neighbours wrote.",
        ),
    ),
    "colouring": TeamKind(
        "Each of 4 agents has a colour, red, green or blue, and hears only its neighbours. After some rounds no two "
        "neighbours may have the same colour.",
        "colour",
        "Which colour do you have now?",
        "You begin with the colour {}.",
        False,
        Procedure(
            "colouring-a-network",
            "how agents in a network come to different colours",
            "To colour a network, keep the colour that you have. Only if a neighbour above you wrote the same colour, "
            "take one that no neighbour wrote.",
        ),
        Procedure(
            "mixing-colours",
            "how agents in a network mix their colours",
            "To mix colours, take the colour that a neighbour wrote. Only if a neighbour below you wrote the same, "
            "take one that you had before.",
        ),
        COLOURS,
    ),
    "agreement": TeamKind(
        "Each of 4 agents has a day of May and hears only its neighbours. After some rounds all must name the same "
        "day, one that an agent had at the beginning.",
        "day",
        "On which day do all meet?",
        "You begin with day {}.",
        False,
        Procedure(
            "agreeing-on-a-day",
            "how agents in a network agree on a day",
            "To agree on a day, write the lowest of all the days that are remembered and that neighbours wrote.",
        ),
        Procedure(
            "spacing-of-days",
            "how agents in a network keep their days apart",
            "To keep days apart, write the day after the last one that is remembered or that neighbours wrote.",
        ),
    ),
}
SKILLS = tuple(procedure for kind in KINDS.values() for procedure in (kind.skill, kind.other))
"""All that there are, so that who selects has six to choose from."""


@dataclass(frozen=True, slots=True)
class TeamProblem:
    """One problem of a kind: who hears whom, and what each agent ``begins`` with, by their names in order of rank."""

    kind: TeamKind
    neighbours: Mapping[str, Sequence[str]]
    begins: Mapping[str, str]

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Pairs of neighbours."""
        names = list(self.neighbours)
        return [(a, b) for a in names for b in self.neighbours[a] if names.index(a) < names.index(b)]

    @property
    def message(self) -> Mapping[str, Json]:
        """The typed message that an agent writes at every turn, as a JSON schema."""
        value: Mapping[str, Json] = {"enum": list(self.kind.options)} if self.kind.options else {"type": "integer"}
        return object_schema({self.kind.field: value})

    @property
    def message_words(self) -> str:
        """The same message as it is asked for in words."""
        return f'Answer in this form: {{"{self.kind.field}": {"WORD" if self.kind.options else "NUMBER"}}}'

    def step(self, name: str, own: str | None, heard: Sequence[tuple[str, str]]) -> str:
        """What the rule makes of what an agent has, None where it does not know, and heard: (neighbour, value) each."""
        values = [value for _, value in heard]
        if not self.kind.options:
            best = max if self.kind.field == "ticket" else min
            return best([*values, *([] if own is None else [own])], key=int)
        ranks = list(self.neighbours)
        above = [value for other, value in heard if ranks.index(other) < ranks.index(name)]
        if own is not None and own not in above:
            return own
        return next((colour for colour in COLOURS if colour not in values), own or COLOURS[0])

    def play(self, *, forgets: bool = False) -> dict[str, str]:
        """What all answer who follow the rule. Who ``forgets`` knows of itself what it is told at every turn alone."""
        has = dict(self.begins)
        for _ in range(ROUNDS):
            own = self.begins if self.kind.always and forgets else {} if forgets else has
            heard = {name: [(other, has[other]) for other in self.neighbours[name]] for name in has}
            has = {name: self.step(name, own.get(name), heard[name]) for name in has}
        return has

    def guess(self, draw: random.Random) -> dict[str, str]:
        """What all answer who choose blindly among what there is."""
        values = list(self.kind.options or self.begins.values())
        return {name: draw.choice(values) for name in self.begins}

    def score_of(self, answers: Mapping[str, str | None]) -> Score:
        """The share of pairs of neighbours that are right with each other: both name one value with which somebody
        began, or both have colours, and different ones. Solved are all. An answer of one agent that cannot be read is
        a failure of form."""
        valid, differ = set(self.kind.options or self.begins.values()), bool(self.kind.options)
        pairs = [(answers.get(a), answers.get(b)) for a, b in self.edges]
        right = [one in valid and other in valid and (one != other) == differ for one, other in pairs]
        readable = all(answers.get(name) is not None for name in self.begins)
        return Score(sum(right) / len(right), all(right), readable=readable)

    def score(self, text: str | None) -> Score:
        """Of a team's answer, the JSON that its program writes, or of lines such as "Alice: 7"."""
        found = json_answer(text).get("answers")
        said = found if isinstance(found, Mapping) else assign(text or "", list(self.begins))
        words = {name: str(said[name]) for name in self.begins if said.get(name) is not None}
        return self.score_of({n: read_answer(w, self.kind.options, self.kind.field) for n, w in words.items()})


def team_problem(kind: str, draw: random.Random, names: Sequence[str]) -> TeamProblem:
    """A problem of that kind for these four: on one of the graphs, its places dealt anew."""
    known = KINDS[kind]
    graphs = TRIANGLES if known.options else sorted(GRAPHS)
    while True:
        places = draw.sample(list(names), len(names))
        edges = [(places[a], places[b]) for a, b in GRAPHS[draw.choice(graphs)]]
        neighbours = {name: [other for other in names if {(name, other), (other, name)} & set(edges)] for name in names}
        if known.options:
            values = [draw.choice(list(known.options)) for _ in names]
        else:
            values = [str(value) for value in draw.sample(range(11, 30) if known.field == "day" else range(11, 99), 4)]
        made = TeamProblem(known, neighbours, dict(zip(names, values, strict=True)))
        if made.score_of(made.play()).solved and not made.score_of(made.begins).solved:
            return made
