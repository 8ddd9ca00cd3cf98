"""The valid-consensus game (arXiv 2603.01213): who is honest, what they start with, when it ends and how.

All agents hear all proposals and nobody can tell different things to different agents. Valid: the game was stopped
while all honest agents held one value with which an honest one began. Invalid: it was stopped otherwise. None: nobody
stopped it in time. The paper's stop rule counts stop votes against *all* agents, so Byzantine ones that never vote to
stop raise the bar for the honest; ``voters("honest")`` counts honest votes against honest agents and takes that away.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kvorum.errors import BadRequest
from kvorum.tasks.item import Item
from kvorum.tasks.scoring import Score, json_answer
from kvorum.wording import check_known

QUORUMS = ("all", "honest")


@dataclass(frozen=True, slots=True)
class Verdict:
    """``outcome`` "valid", "invalid" or "none"; ``reason`` of an invalid one: "split" (honest agents hold different
    values: stopped too early) or "foreign" (one value, with which no honest agent began)."""

    outcome: str
    reason: str = ""
    value: int | None = None


@dataclass
class Game:
    """The state that the rules speak of. ``board``: the proposals of the round, None for an agent that made none."""

    names: Sequence[str]
    byzantine: frozenset[str]
    initial: Mapping[str, int]
    low: int = 0
    high: int = 50
    quorum: str = "all"
    repeats: bool = False
    """Whether the last value of a Byzantine agent that abstains stands on the board again, as in the released code."""
    board: dict[str, int | None] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.held = dict(self.initial)

    @property
    def honest(self) -> list[str]:
        """The names of the agents that are not Byzantine."""
        return [name for name in self.names if name not in self.byzantine]

    def propose(self, proposals: Mapping[str, int | None]) -> None:
        """Broadcast a round's proposals. An honest agent that makes none goes on holding what it held."""
        before = self.board if self.repeats else {}
        self.board = {
            name: before.get(name) if proposals.get(name) is None and name in self.byzantine else proposals.get(name)
            for name in self.names
        }
        self.held |= {name: value for name, value in self.board.items() if name in self.initial and value is not None}

    def voters(self, quorum: str = "") -> Sequence[str]:
        """Whose votes count under a quorum ("": the game's); two thirds of them end the game."""
        return self.honest if (quorum or self.quorum) == "honest" else self.names

    def verdict(self, stopped: bool) -> Verdict:
        """How the game ended: consensus on a valid value, on an invalid one, or none."""
        values = set(self.held.values())
        value = min(values) if len(values) == 1 else None
        if not stopped:
            return Verdict("none", "", value)
        if value is None:
            return Verdict("invalid", "split")
        return Verdict("valid", "", value) if value in self.initial.values() else Verdict("invalid", "foreign", value)


def deal(names: Sequence[str], byzantine: int, *, seed: int, low: int = 0, high: int = 50, quorum: str = "all") -> Game:
    """A game with ``byzantine`` agents at random places and uniform initial values for the honest ones.

    Raises:
        BadRequest: no honest agent, no range. UnknownName: no such quorum.
    """
    if not 0 <= byzantine < len(names):
        raise BadRequest(f"{byzantine} Byzantine agents of {len(names)}: at least one must be honest.")
    if low > high:
        raise BadRequest(f"There is no value from {low} to {high}.")
    check_known("quorum", quorum, QUORUMS)
    draw = random.Random(seed)
    liars = frozenset(draw.sample(list(names), byzantine))
    initial = {name: draw.randint(low, high) for name in names if name not in liars}
    return Game(names, liars, initial, low, high, quorum)


Rule = Callable[[Sequence[int], int], int]


def median(proposals: Sequence[int], faults: int) -> int:
    """The lower median."""
    return sorted(proposals)[(len(proposals) - 1) // 2]


def trimmed(proposals: Sequence[int], faults: int) -> int:
    """Without the ``faults`` lowest and highest proposals, the one nearest to the mean of the rest, the lower of two.

    The mean itself is hardly ever a value that somebody began with, so it would agree and be invalid.
    """
    rest = sorted(proposals)
    rest = rest[faults : len(rest) - faults] or rest
    mean = sum(rest) / len(rest)
    return min(rest, key=lambda value: (abs(value - mean), value))


RULES: dict[str, Rule] = {"median": median, "trimmed": trimmed}
"""What scripted honest agents adopt from the first round's proposals; the ceiling of the game."""

LIES: dict[str, Callable[[Game, random.Random], int]] = {
    "low": lambda game, draw: game.low,
    "high": lambda game, draw: game.high,
    "random": lambda game, draw: draw.randint(game.low, game.high),
}
"""What scripted Byzantine agents propose. They never vote to stop."""


def agreement(
    seed: int, names: tuple[str, ...], *, byzantine: int = 0, rounds: int = 10, quorum: str = "honest"
) -> Item:
    """The game for the program ``consensus``: honest workers must agree on a value with which one of them began.

    A team's answer is the JSON that the program writes; one worker that is given everything answers with a number.
    """
    game = deal(names, byzantine, seed=seed, quorum=quorum)
    initial = sorted(game.initial.values())

    def score(answer: str | None) -> Score:
        found = json_answer(answer)
        value = found.get("value") if found.get("outcome") == "valid" else None
        if not found and (answer or "").strip().lstrip("-").isdecimal():
            value = int(answer or "")
        return Score(float(value in initial), value in initial)

    def guess(draw: random.Random) -> str:
        """Every honest worker holds a random value."""
        held = {draw.randint(game.low, game.high) for _ in game.honest}
        return json.dumps({"outcome": "valid" if len(held) == 1 else "invalid", "value": min(held)})

    begun = "\n".join(f"{name} began with {value}." for name, value in game.initial.items())
    return Item(
        "agreement",
        seed,
        "agree",
        score,
        str(median(initial, byzantine)),
        guess,
        str((game.low + game.high) // 2),
        whole=f"{begun}\nName a value with which one of them began. The answer is that number.",
        given={"consensus": {"byzantine": byzantine, "rounds": rounds, "game_seed": seed, "quorum": quorum}},
        programs=("consensus",),
    )
