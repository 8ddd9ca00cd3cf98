"""Failures of talk that are seen in the words alone: repetition, flake replies, echo, loops, flipped roles."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from kvorum.harness.dialogue import INSTRUCTION, SOLUTION, flake, polite
from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import TraceState
from kvorum.lab.detect.words import triples, words
from kvorum.store.events import Event
from kvorum.tasks.item import Item

WINDOW = 24
"""Words over which repetition is measured."""
SHORT = 8
"""An utterance of fewer words is no echo of anything."""


class Repetition(Detector):
    """MAST 1.3. Common in success too, so a window with a number that the worker never wrote before does not count."""

    mode = "repetition"
    signal = "share of the last 24 words' triples that the worker wrote before, with no new number among them"
    threshold = 0.85

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.begun: dict[str, str] = {}
        self.recent: dict[str, deque[tuple[bool, bool]]] = {}
        self.last: dict[str, tuple[str, ...]] = {}
        self.seen: dict[str, set[tuple[str, ...]]] = {}
        self.numbers: dict[str, set[str]] = {}

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By each word that is complete."""
        if state.note == "told":  # within a turn: the next may say the same again
            self.forget(state.data["worker"])
        if event["event"] != "tick" or state.forced:
            return
        for row in event["rows"]:
            name = row["worker"]
            if name not in state.texts:
                continue
            *whole, rest = re.split(r"\W+", self.begun.get(name, "") + row["text"].lower())
            self.begun[name] = rest
            for word in filter(None, whole):
                strength = self.take(name, word)
                if strength:
                    yield self.found(state, name, f"…{state.texts[name][-80:]}", strength)

    def forget(self, name: str) -> None:
        """Forget what a worker wrote: its next turn may say the same again."""
        self.begun.pop(name, None)
        for kept in (self.recent, self.last, self.seen, self.numbers):
            kept.pop(name, None)

    def take(self, name: str, word: str) -> float:
        """The strength with one more word."""
        numbers = self.numbers.setdefault(name, set())
        new = word.isdecimal() and word not in numbers
        numbers.add(word)
        run = (*self.last.get(name, ())[-2:], word)
        seen = self.seen.setdefault(name, set())
        recent = self.recent.setdefault(name, deque(maxlen=WINDOW))
        recent.append((run in seen, new))
        self.last[name] = run
        seen.add(run)
        if len(recent) < WINDOW or any(fresh for _, fresh in recent):
            return 0.0
        return sum(old for old, _ in recent) / WINDOW


class Flake(Detector):
    """Flake reply (CAMEL): a promise to do something in place of doing it."""

    mode = "flake"
    signal = "an utterance that promises and holds nothing else: no list, code, sum or number"

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By each utterance of somebody who should work."""
        for said in state.closed if state.talking else ():
            user = state.exchange == "dialogue" and said.worker == state.workers[0]
            if not user and not said.cut and flake(said.text) and not re.search(r"\d", said.text):
                yield self.found(state, said.worker, said.text)


class Echo(Detector):
    """CAMEL's repeated instruction: what was heard is given back."""

    mode = "echo"
    signal = "share of an utterance's triples that stand in one thing its speaker heard, with no number that does not"
    threshold = 0.8

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.got: dict[tuple[str, str], str] = {}

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By each utterance, or message on a graph."""
        if state.note == "mail":
            yield from self.mail(state)
        for said in state.closed if state.talking else ():
            body = said.text.replace(INSTRUCTION, " ").replace(SOLUTION, " ").split("Next request", 1)[0]
            if len(words(body)) < SHORT:
                continue
            heard = [said.heard] if state.exchange == "dialogue" else self.around(said.worker, said.text, state)
            mine = triples(body)
            numbers = set(re.findall(r"\d+", body))  # what holds a new one is no echo, whatever its words
            heard = [text for text in heard if numbers <= set(re.findall(r"\d+", text))]
            share = max((len(mine & triples(text)) / len(mine) for text in heard), default=0.0)
            if share > 0:
                yield self.found(state, said.worker, said.text, share)

    def around(self, worker: str, text: str, state: TraceState) -> list[str]:
        """What somebody who writes on had before its eyes."""
        texts = [state.prompt, state.private.get(worker, "")]
        if state.exchange in ("shared", "chain"):
            texts += [said.text for said in state.said if said.worker != worker and said.tick < state.tick]
        return texts

    def mail(self, state: TraceState) -> Iterator[Finding]:
        """A message that goes back to where it came from."""
        for sender, messages in state.data["sent"].items():
            for reader, text in messages.items():
                mine = triples(text)
                heard = triples(self.got.get((reader, sender), ""))
                if len(words(text)) >= SHORT and mine & heard:
                    yield self.found(state, sender, text, len(mine & heard) / len(mine))
        self.got = {(sender, reader): text for reader, inbox in state.data["got"].items() for sender, text in inbox}


class Loop(Detector):
    """CAMEL's infinite loop: thanks and goodbyes, or the same again, from everybody."""

    mode = "loop"
    signal = "utterances in a row, of at least two workers, that are polite or hold no new triples and numbers"
    threshold = 4.0

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.seen: set[tuple[str, ...]] = set()
        self.numbers: set[str] = set()
        self.run: list[str] = []

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Judge each utterance as it ends."""
        for said in state.closed if state.exchange in ("shared", "dialogue") else ():
            mine, numbers = triples(said.text), set(re.findall(r"\d+", said.text))
            old = polite(said.text) or len(mine - self.seen) <= 0.2 * len(mine)
            old = old and numbers <= self.numbers
            self.seen |= mine
            self.numbers |= numbers
            self.run = [*self.run, said.worker] if old else []
            if len(set(self.run)) > 1:
                yield self.found(state, "", said.text, len(self.run))


class Flip(Detector):
    """CAMEL's role flipping: the other role's grammar."""

    mode = "flip"
    signal = "the other role's mark (Instruction:, Solution:), or a step under somebody else's name"

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.read: dict[str, int] = {}

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Judge each utterance as it ends."""
        for said in state.closed:
            if state.exchange == "dialogue":
                user = said.worker == state.workers[0]
                if (SOLUTION if user else INSTRUCTION) in said.text and (not user or INSTRUCTION not in said.text):
                    yield self.found(state, said.worker, said.text)
            elif state.exchange == "shared":
                named = re.findall(r"\*\*(\w+) \[\d+\]:\*\*", said.text)
                if set(named) & set(state.workers) - {said.worker}:
                    yield self.found(state, said.worker, said.text)


DETECTORS: tuple[type[Detector], ...] = (Repetition, Flake, Echo, Loop, Flip)
