"""Failures about the end and about checking: when a run stops, whether what is claimed was checked, and rightly."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kvorum.harness.answers import boxed
from kvorum.harness.dialogue import DONE, INSTRUCTION, flake
from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import NoteData, TraceState, Utterance
from kvorum.lab.detect.words import SUM, outside_box, stated, sums
from kvorum.store.events import Event
from kvorum.tasks.item import Item

_CHECKED = re.compile(r"\b(?:verified|verify|double-?check(?:ed)?|check(?:ed|s)?|confirm(?:ed)?)\b", re.IGNORECASE)
_CLAIM = re.compile(r"(?<!not )(?<!un)\b(?:verified|double[- ]?checked|checked|confirmed)\b", re.IGNORECASE)


def as_seen(data: NoteData, who: str) -> set[int]:
    """The values that somebody saw proposed in a round."""
    shown = {**data["board"], **data.get("changed", {}).get(who, {})}
    return {value for value in shown.values() if value is not None}


def done(text: str) -> bool:
    """Whether a user says that the task is done."""
    return DONE.strip("<>") in text and INSTRUCTION not in text


class Premature(Detector):
    """Premature termination (MAST 3.1): a team ends before its goal is met."""

    mode = "premature"
    signal = "an answer, a last word or a vote to stop while what it needs is not there"

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.solutions = 0
        self.ended: set[str] = set()

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By how each program ends."""
        data = state.data
        if state.note == "found" and self.item is not None:
            name = data["worker"]
            everything = " ".join(map(outside_box, state.texts.values()))
            unheld = [part.name for part in self.item.parts if not stated(everything, part)]
            if unheld and not self.item.score(boxed(state.texts[name])).solved:
                yield self.found(state, name, f"answered without: {', '.join(unheld)}")
        elif state.note == "round":
            for name, vote in data["votes"].items():
                if vote == "stop" and len(as_seen(data, name)) > 1:
                    yield self.found(state, name, f"votes to stop in round {data['n']} while values differ")
        for name in state.ended - self.ended if state.exchange == "independent" else ():
            if boxed(state.texts[name]) is None:
                yield self.found(state, name, f"ends without an answer: {state.texts[name][-80:]}")
        self.ended = state.ended
        for said in state.closed if state.exchange == "dialogue" else ():
            if said.worker != state.workers[0]:
                self.solutions += not flake(said.text) and INSTRUCTION not in said.text
            elif self.solutions == 0 and done(said.text):
                yield self.found(state, said.worker, "done before there is a solution")


class Unaware(Detector):
    """Unaware of termination conditions (MAST 1.5): a team goes on though it is done."""

    mode = "unaware"
    signal = "votes to go on in a second round of one valid value; words of the one who wrote least since all is known"
    threshold = 80.0

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.initial: set[int] = set()
        self.agreed = 0
        self.known: dict[str, int] = {}

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By rounds, or by what is written."""
        data = state.data
        if state.note == "game":
            self.initial = set(data["initial"].values())
        elif state.note == "round":
            for name, vote in data["votes"].items():
                seen = as_seen(data, name)
                if len(seen) != 1 or not seen <= self.initial or vote == "stop":
                    self.known[name] = 0
                    continue
                self.known[name] = self.known.get(name, 0) + 1
                if self.known[name] >= 2:
                    yield self.found(state, name, f"goes on in round {data['n']}", self.threshold)
        elif state.exchange == "shared" and state.closed and not state.forced and self.item and self.item.parts:
            written = {name: len(text.split()) for name, text in state.texts.items()}
            if not self.known:
                everything = " ".join(map(outside_box, state.texts.values()))
                if all(stated(everything, part) for part in self.item.parts):
                    self.known = written
            else:
                working = [name for name in written if name not in state.ended]
                least = min((written[name] - self.known[name] for name in working), default=0)
                if least:
                    yield self.found(state, "", "all parts are known and nobody answers", float(least))


class NoVerification(Detector):
    """No or incomplete verification (MAST 3.2): an answer is given that nobody has checked."""

    mode = "no_verification"
    signal = "a claim to have checked, with no sum and no tool call in this utterance or the worker's one before"

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.before: dict[str, str] = {}
        self.tools = False

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Judge each utterance as it ends."""
        self.tools |= event["event"] == "outside"
        for said in state.closed if state.talking else ():
            checked = sums(said.text) or sums(self.before.get(said.worker, "")) or self.tools
            if _CLAIM.search(said.text) and not checked:
                yield self.found(state, said.worker, said.text)
            self.before[said.worker] = said.text
            self.tools = False


class FalseVerification(Detector):
    """Incorrect verification (MAST 3.3): a wrong answer is said to have been checked."""

    mode = "false_verification"
    signal = "a sum that is wrong, in an utterance that speaks of checking"

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Judge each utterance as it ends."""
        for said in state.closed if state.talking else ():
            if _CHECKED.search(said.text) and not all(sums(said.text)):
                yield self.found(state, said.worker, said.text)


class AcceptsUnverified(Detector):
    """AgentsNet: what others say is taken as true, here where it is wrong and could have been checked."""

    mode = "accepts_unverified"
    signal = "a part's wrong value that another one claimed before, claimed without a sum of one's own"

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        parts = [part for part in item.parts if not part.holder] if item is not None else []
        self.right = {part.name.lower(): part.answer for part in parts}
        names = "|".join(map(re.escape, sorted(self.right, key=len, reverse=True))) or "(?!)"
        self.pattern = re.compile(
            rf"\b({names})\s*(?:=|is)\s*(-?\d+)(?![\d.]*\d)(?!\s*(?:plus|minus|times|[-+*×/=]))", re.IGNORECASE
        )
        self.claimed: dict[tuple[str, str], str] = {}

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Judge each utterance as it ends."""
        for said in state.closed if state.exchange == "shared" else ():
            yield from self.claims(said, state)

    def claims(self, said: Utterance, state: TraceState) -> Iterator[Finding]:
        """What it claims of parts."""
        for name, value in self.pattern.findall(said.text):
            claim = (name.lower(), value)
            first = self.claimed.setdefault(claim, said.worker)
            own = any(result == value for *_, result in SUM.findall(state.texts[said.worker]))
            if first != said.worker and value != self.right[name.lower()] and not own:
                yield self.found(state, said.worker, said.text)


DETECTORS: tuple[type[Detector], ...] = (Premature, Unaware, NoVerification, FalseVerification, AcceptsUnverified)
