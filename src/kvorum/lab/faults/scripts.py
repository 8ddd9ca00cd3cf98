"""Scripts: what the workers of a scenario say, and what becomes of it under a fault.

A scripted run is said by heart from the first word to the last; a model's run has only the lines that the fault needs.
Lines come from templates and a generator seeded by scenario, fault and seed, with near misses among the faultless ones:
promises that are kept, sums that are right, questions asked in time, thanks with something behind them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field

from kvorum.lab import read_yaml
from kvorum.runs.injection import Injection
from kvorum.tasks.item import Item

PHRASES: Mapping[str, Sequence[str]] = read_yaml(__file__, "phrases.yaml")
"""What is said, by what it is for; lists and their order decide what a seed says."""


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

    ``cues``: of each worker, one after the other, or by turn. ``blamed``: whose a fault is by construction, if there is
    one; "" where it is of all. ``injections``: what is done besides.
    """

    cues: dict[str, list[Cue]]
    blamed: Sequence[str]
    injections: list[Injection] = field(default_factory=list)


@dataclass
class ScriptWriter:
    """Writes the words of a scenario's workers, from the problem, the fault and a seeded generator. ``reworded``:
    whether the fault is said in other words."""

    item: Item
    names: Sequence[str]
    fault: str
    draw: random.Random
    reworded: bool = False

    def chatter(self) -> str:
        """A sentence of ten words or so, hardly ever the same twice."""
        draw = self.draw
        one, other = draw.sample(PHRASES["nouns"], 2)
        kinds = draw.sample(PHRASES["adjectives"], 2)
        verb, place = draw.choice(PHRASES["verbs"]), draw.choice(PHRASES["places"])
        return f"The {kinds[0]} {one} {verb} the {kinds[1]} {other} {place}."

    def phrase(self, kind: str) -> str:
        """One of the phrases of that kind, or of the other ones for it."""
        return self.draw.choice(PHRASES[f"{kind}_reworded" if self.reworded else kind])

    def sum(self, right: bool = True) -> str:
        """A sum that is right, or not."""
        a, b = self.draw.randint(11, 60), self.draw.randint(2, 9)
        return f"{a} + {b} = {a + b + (0 if right else self.draw.choice((-2, -1, 1, 2, 10)))}"

    def spoken(self) -> str:
        """The words of a fault that is a thing to say, whoever says it; "" of other faults."""
        if self.fault == "loop":
            said = self.chatter()
            return " ".join(self.copied(said) for _ in range(self.draw.randint(5, 7)))
        if self.fault in ("flake", "unverified"):
            return self.phrase(self.fault)
        if self.fault == "false_check":
            wrong = self.sum(right=False)
            return f"Check: {self.said(wrong, wrong.replace('+', 'plus').replace('=', 'makes'))}, so this is verified."
        return ""

    def copied(self, text: str) -> str:
        """A text again: as it is, or with a word in eight replaced."""
        words = text.split()
        for at in self.draw.sample(range(len(words)), max(1, len(words) // 8)) if self.reworded else ():
            words[at] = self.draw.choice(PHRASES["nouns"])
        return " ".join(words)

    def said(self, plain: str, other: str) -> str:
        """The plain wording, or where the fault is reworded the other one."""
        return other if self.reworded else plain

    def thanks(self, speaker: str) -> str:
        """Words of thanks or goodbye to another worker, drawn from the phrases."""
        others = [name for name in self.names if name != speaker]
        return self.phrase("thanks").format(name=self.draw.choice(others))

    def link(self, sender: str, reader: str, turn: int, lag: int = 1) -> Injection:
        """The fault in what is sent, from ``turn`` on: it comes ``lag`` later, or never where the fault is a drop."""
        late = None if self.fault == "drop" else lag
        return Injection("link", sender, self.fault, turn=turn, to=reader, lag=late)


def written_on(sheet: CueSheet, encode: Callable[[str], Sized], scripted: bool, gap: int) -> list[Injection]:
    """The injections of workers that write on: lines with empty lines between, the last one ends the text.

    ``gap``: tokens that a model writes of its own before a fault's line.
    """
    found = list(sheet.injections)
    for name, lines in sheet.cues.items():
        at = 0
        kept = [line for line in lines if scripted or line.fault or line.needed]
        for number, line in enumerate(kept, start=1):
            at += gap if line.fault and not scripted and not line.now else 0
            end = (scripted and number == len(kept)) or not line.text  # a fault without words is an end
            before = "" if scripted or at == 0 or not line.text else "\n\n"
            text = before + line.text + ("" if end else "\n\n")
            found.append(Injection("say", name, line.fault, at=at, text=text, end=end))
            at += len(encode(text))
    return found


def by_turns(sheet: CueSheet, scripted: bool) -> list[Injection]:
    """The injections of workers that take turns."""
    return sheet.injections + [
        Injection("say", name, line.fault, turn=turn, text=line.text, end=True)
        for name, lines in sheet.cues.items()
        for turn, line in enumerate(lines)
        if scripted or line.fault or line.needed
    ]
