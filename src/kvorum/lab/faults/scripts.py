"""Scripts: what the workers of a scenario say, and what becomes of it under a fault.

A scripted run is said by heart from the first word to the last; a model's run has only the lines that the fault needs.
Lines come from templates and a generator seeded by scenario, fault and seed, with near misses among the faultless ones:
promises that are kept, sums that are right, questions asked in time, thanks with something behind them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field

from kvorum.lab.faults import catalogue
from kvorum.lab.faults.record import Label
from kvorum.runs.injection import Injection
from kvorum.tasks.item import Item

_NOUNS = (
    *("harbor", "lantern", "meadow", "violin", "glacier", "orchard", "compass", "canyon", "feather", "castle"),
    *("kettle", "ribbon", "saddle", "thicket", "anchor", "beacon", "cottage", "desert", "engine", "furnace"),
)
_VERBS = ("crosses", "follows", "warms", "guards", "paints", "carries", "measures", "shadows", "repairs", "circles")
_KINDS = ("quiet", "rusty", "golden", "narrow", "distant", "hollow", "bright", "crooked", "frozen", "gentle", "old")
_PLACES = ("near the river", "behind the mill", "under the bridge", "beyond the hill", "along the coast", "at dawn")

FLAKES = (
    "I will take care of everything soon. Let me begin.",
    "I am going to work on my part now. I will tell you.",
    "Let me think about it first. I'll come back with it.",
    "We will do this step by step. I'll start right away.",
    "I shall do that next. Let me prepare it.",
)
UNVERIFIED = (
    "I have verified everything, and all of it is right.",
    "Everything is double-checked now, so we can go on.",
    "I checked the whole thing, and it is all fine.",
    "The result is verified and confirmed on my side.",
)
THANKS = ("Thank you, {name}!", "You're welcome, {name}.", "Thanks a lot, {name}.", "Goodbye, {name}.", "Bye, {name}!")

REWORDED = ("loop", "flake", "unverified", "false_check", "echo", "thanks", "flip", "lie", "forget", "credulous")
"""Faults of words, which can also be said in words that no detector was made for."""
OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "flake": (
        "Working on it, please wait for my part.",
        "On my way with it, give me some time.",
        "Soon there is more from my side, promised.",
        "My part comes in a moment, hold on.",
    ),
    "unverified": (
        "I looked it all over, and it holds.",
        "Everything passes on my side.",
        "No mistakes anywhere, I went through it.",
        "This is tested and it is fine.",
    ),
    "thanks": ("Much obliged, {name}.", "Take care, {name}!", "See you around, {name}.", "So kind of you, {name}."),
}


@dataclass(frozen=True, slots=True)
class Cue:
    """Words of a worker. ``fault``: they are the fault's. ``needed``: a model must say them too. ``now``: a model does
    not write anything of its own before them."""

    text: str
    fault: str = ""
    needed: bool = False
    now: bool = False


@dataclass
class CueSheet:
    """Who says what in a run.

    ``cues``: of each worker, one after the other, or by turn (None: whatever the model writes). ``injections``: what is
    done besides. ``labels``: (mode, worker) that are true by construction; the worker is "" where it is of all.
    """

    cues: dict[str, list[Cue | None]]
    injections: list[Injection] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)


@dataclass
class Writer:
    """Writes the words of a scenario's workers, from the problem, the fault and a seeded generator."""

    item: Item
    names: Sequence[str]
    fault: str
    draw: random.Random
    reworded: bool = False
    """Whether the fault is said in other words."""

    def blame(self, worker: str, *others: str) -> list[Label]:
        """The labels of the writer's fault."""
        return [(catalogue.find(self.fault).mode, name) for name in (worker, *others)]

    def chatter(self) -> str:
        """A sentence of ten words or so, hardly ever the same twice."""
        draw = self.draw
        one, other = draw.sample(_NOUNS, 2)
        kinds = draw.sample(_KINDS, 2)
        return f"The {kinds[0]} {one} {draw.choice(_VERBS)} the {kinds[1]} {other} {draw.choice(_PLACES)}."

    def right_sum(self) -> str:
        """A sum that is right."""
        a, b = self.draw.randint(11, 60), self.draw.randint(2, 9)
        return f"{a} + {b} = {a + b}"

    def wrong_sum(self) -> str:
        """A sum that is wrong."""
        a, b = self.draw.randint(11, 60), self.draw.randint(2, 9)
        return f"{a} + {b} = {a + b + self.draw.choice((-2, -1, 1, 2, 10))}"

    def spoken(self, name: str) -> str:
        """The words of a fault that is a thing to say, whoever says it; "" of other faults."""
        if self.fault == "loop":
            said = self.chatter()
            return " ".join(self.copied(said) for _ in range(self.draw.randint(5, 7)))
        if self.fault == "flake":
            return self.draw.choice(OTHER_WORDS["flake"] if self.reworded else FLAKES)
        if self.fault == "unverified":
            return self.draw.choice(OTHER_WORDS["unverified"] if self.reworded else UNVERIFIED)
        if self.fault == "false_check":
            total = self.wrong_sum()
            total = total.replace("+", "plus").replace("=", "makes") if self.reworded else total
            return f"Check: {total}, so this is verified."
        return ""

    def copied(self, text: str) -> str:
        """A text again: as it is, or with a word in eight replaced."""
        words = text.split()
        for at in self.draw.sample(range(len(words)), max(1, len(words) // 8)) if self.reworded else ():
            words[at] = self.draw.choice(_NOUNS)
        return " ".join(words)

    def said(self, plain: str, other: str) -> str:
        """One of two wordings."""
        return other if self.reworded else plain

    def thanks(self, speaker: str) -> str:
        """Thanks to somebody else."""
        others = [name for name in self.names if name != speaker]
        return self.draw.choice(OTHER_WORDS["thanks"] if self.reworded else THANKS).format(
            name=self.draw.choice(others)
        )


def written_on(script: CueSheet, encode: Callable[[str], Sized], scripted: bool, gap: int) -> list[Injection]:
    """The injections of a script whose workers write on: lines with empty lines between, the last one ends the text.

    ``gap``: tokens that a model writes of its own before a fault's line.
    """
    found = list(script.injections)
    for name, lines in script.cues.items():
        at = 0
        kept = [line for line in lines if line is not None and (scripted or line.fault or line.needed)]
        for number, line in enumerate(kept):
            at += gap if line.fault and not scripted and not line.now else 0
            last = scripted and number == len(kept) - 1
            end = last or not line.text  # a fault without words is an end
            before = "" if scripted or at == 0 or not line.text else "\n\n"
            text = before + line.text + ("" if end else "\n\n")
            found.append(Injection("say", name, line.fault, at=at, text=text, end=end))
            at += len(encode(text))
    return found


def by_turns(script: CueSheet, scripted: bool) -> list[Injection]:
    """The injections of a script whose workers take turns."""
    return [*script.injections] + [
        Injection("say", name, line.fault, turn=turn, text=line.text, end=True)
        for name, lines in script.cues.items()
        for turn, line in enumerate(lines)
        if line is not None and (scripted or line.fault or line.needed)
    ]
