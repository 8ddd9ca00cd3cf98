"""Failures about the end and about checking: when a run stops, whether what is claimed was checked, and rightly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvorum.harness.answers import boxed
from kvorum.harness.dialogue_rules import DONE, INSTRUCTION, flake
from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import TraceState
from kvorum.lab.detect.words import SUM, outside_box, stated, sums
from kvorum.tasks.scoring import AnswerPart

_CHECKED = re.compile(r"\b(?:verified|verify|double-?check(?:ed)?|check(?:ed|s)?|confirm(?:ed)?)\b", re.IGNORECASE)
_CLAIM = re.compile(r"(?<!not )(?<!un)\b(?:verified|double[- ]?checked|checked|confirmed)\b", re.IGNORECASE)


def as_seen(state: TraceState, who: str) -> set[int]:
    """The values that somebody saw proposed in the round that the last event was."""
    shown = {**state.data["board"], **state.data.get("changed", {}).get(who, {})}
    return {value for value in shown.values() if value is not None}


def unstated(state: TraceState) -> list[AnswerPart]:
    """The parts of the problem whose answers nobody has stated, but for what stands in a final answer."""
    everything = " ".join(map(outside_box, state.texts.values()))
    return [part for part in state.item.parts if not stated(everything, part)] if state.item is not None else []


@dataclass
class Premature(Detector, premature=1.0):
    """Premature termination (MAST 3.1): a team ends before its goal is met.

    Seen by an answer, a last word or a vote to stop while what it needs is not there.
    """

    solutions: int = 0
    ended: set[str] = field(default_factory=set)

    def feed(self) -> Iterator[Finding]:
        """Judge how the run ends, which each kind of program shows in its own way."""
        state, data = self.state, self.state.data
        if state.note == "found" and state.item is not None:
            name, missing = data["worker"], unstated(state)
            if missing and not state.item.score(boxed(state.texts[name])).solved:
                yield self.found(name, f"answered without: {', '.join(part.name for part in missing)}")
        for name, vote in data.get("votes", {}).items():
            if vote == "stop" and len(as_seen(state, name)) > 1:
                yield self.found(name, f"votes to stop in round {data['n']} while values differ")
        for name in state.ended - self.ended if state.exchange == "independent" else ():
            if boxed(state.texts[name]) is None:
                yield self.found(name, f"ends without an answer: {state.texts[name][-80:]}")
        self.ended = state.ended
        for said in state.closed if state.exchange == "dialogue" else ():
            if said.worker != state.workers[0]:
                self.solutions += not flake(said.text) and INSTRUCTION not in said.text
            elif self.solutions == 0 and DONE.strip("<>") in said.text and INSTRUCTION not in said.text:
                yield self.found(said.worker, "done before there is a solution")


@dataclass
class Unaware(Detector, unaware=80.0):
    """Unaware of termination conditions (MAST 1.5): a team goes on though it is done.

    Strength: words of the one who wrote least since all is known. Or seen by votes to go on in a second round of one
    valid value. ``valid``: for how many rounds in a row somebody has seen one valid value and voted to go on;
    ``known``: how many words each had written when all parts were known.
    """

    valid: Counter[str] = field(default_factory=Counter)
    known: dict[str, int] = field(default_factory=dict)

    def feed(self) -> Iterator[Finding]:
        """Judge the votes of a round, or what is written."""
        state = self.state
        for name, vote in state.data.get("votes", {}).items():
            seen = as_seen(state, name)
            going_on = len(seen) == 1 and seen <= set(state.initial.values()) and vote != "stop"
            self.valid[name] = self.valid[name] + 1 if going_on else 0
            if self.valid[name] >= 2:
                yield self.found(name, f"goes on in round {state.data['n']}", self.modes["unaware"])
        if state.exchange == "shared" and state.closed and not state.forced and state.item and state.item.parts:
            written = {name: len(text.split()) for name, text in state.texts.items()}
            if not self.known:
                self.known = {} if unstated(state) else written
                return
            working = [name for name in written if name not in state.ended]
            least = min((written[name] - self.known[name] for name in working), default=0)
            if least:
                yield self.found("", "all parts are known and nobody answers", float(least))


@dataclass
class NoVerification(Detector, no_verification=1.0):
    """No or incomplete verification (MAST 3.2): an answer is given that nobody has checked.

    Seen by a claim to have checked, with no sum and no tool call in this utterance or the worker's one before.
    ``before``: what each worker said before; ``tool``: whether a tool was called since the last utterance.
    """

    before: dict[str, str] = field(default_factory=dict)
    tool: bool = False

    def feed(self) -> Iterator[Finding]:
        """Judge each utterance as it ends."""
        self.tool |= self.state.outside
        for said in self.state.prose:
            checked = sums(said.text) or sums(self.before.get(said.worker, "")) or self.tool
            if _CLAIM.search(said.text) and not checked:
                yield self.found(said.worker, said.text)
            self.before[said.worker], self.tool = said.text, False


class FalseVerification(Detector, false_verification=1.0):
    """Incorrect verification (MAST 3.3): a wrong answer is said to have been checked.

    Seen by a sum that is wrong, in an utterance that speaks of checking.
    """

    def feed(self) -> Iterator[Finding]:
        """Judge each utterance as it ends."""
        for said in self.state.prose:
            if _CHECKED.search(said.text) and not all(sums(said.text)):
                yield self.found(said.worker, said.text)


class AcceptsUnverified(Detector, accepts_unverified=1.0):
    """AgentsNet: what others say is taken as true, here where it is wrong and could have been checked.

    Seen by a part's wrong value that another one claimed before, claimed without a sum of one's own.
    """

    def __init__(self, state: TraceState) -> None:
        super().__init__(state)
        parts = [part for part in state.item.parts if not part.holder] if state.item is not None else []
        self.right = {part.name.lower(): part.answer for part in parts}
        names = "|".join(map(re.escape, sorted(self.right, key=len, reverse=True))) or "(?!)"
        self.pattern = re.compile(
            rf"\b({names})\s*(?:=|is)\s*(-?\d+)(?![\d.]*\d)(?!\s*(?:plus|minus|times|[-+*×/=]))", re.IGNORECASE
        )
        self.claimed: dict[tuple[str, str], str] = {}

    def feed(self) -> Iterator[Finding]:
        """Judge each utterance as it ends, by what it claims of parts."""
        for said in self.state.closed if self.state.exchange == "shared" else ():
            for name, value in self.pattern.findall(said.text):
                first = self.claimed.setdefault((name.lower(), value), said.worker)
                own = any(result == value for *_, result in SUM.findall(self.state.texts[said.worker]))
                if first != said.worker and value != self.right[name.lower()] and not own:
                    yield self.found(said.worker, said.text)


DETECTORS: tuple[type[Detector], ...] = (Premature, Unaware, NoVerification, FalseVerification, AcceptsUnverified)
