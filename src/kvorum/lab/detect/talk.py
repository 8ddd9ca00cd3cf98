"""Failures of talk that are seen in the words alone: repetition, flake replies, echo, loops, flipped roles."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvorum.harness.dialogue_rules import INSTRUCTION, SOLUTION, flake, polite, word_runs
from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import Utterance
from kvorum.lab.detect.words import numbers, words

WINDOW = 24
"""Words over which repetition is measured."""
SHORT = 8
"""An utterance of fewer words is no echo of anything."""


@dataclass
class _Written:
    """What a worker wrote in its turn: the word that is not complete, and of the last words which triples were old and
    which numbers new."""

    begun: str = ""
    last: tuple[str, ...] = ()
    seen: set[tuple[str, ...]] = field(default_factory=set)
    numbers: set[str] = field(default_factory=set)
    recent: deque[tuple[bool, bool]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, word: str) -> float:
        """The strength of repetition with one more word."""
        new = word.isdecimal() and word not in self.numbers
        self.numbers.add(word)
        self.last = (*self.last[-2:], word)
        self.recent.append((self.last in self.seen, new))
        self.seen.add(self.last)
        if len(self.recent) < WINDOW or any(fresh for _, fresh in self.recent):
            return 0.0
        return sum(old for old, _ in self.recent) / WINDOW


@dataclass
class Repetition(Detector, repetition=0.85):
    """MAST 1.3. Common in success too, so a window with a number that the worker never wrote before does not count.

    Strength: the share of the last 24 words' triples that the worker wrote before.
    """

    written: dict[str, _Written] = field(default_factory=lambda: defaultdict(_Written))

    def feed(self) -> Iterator[Finding]:
        """Judge each word as it is complete."""
        state = self.state
        if state.note == "told":  # within a turn: the next may say the same again
            self.written.pop(state.data["worker"], None)
        for row in state.rows if not state.forced else ():
            name = row["worker"]
            if name not in state.texts:
                continue
            written = self.written[name]
            *whole, written.begun = re.split(r"\W+", written.begun + row["text"].lower())
            for word in filter(None, whole):
                if strength := written.add(word):
                    yield self.found(name, f"…{state.texts[name][-80:]}", strength)


class Flake(Detector, flake=1.0):
    """Flake reply (CAMEL): a promise to do something in place of doing it.

    Seen by an utterance that promises and holds nothing else: no list, code, sum or number.
    """

    def feed(self) -> Iterator[Finding]:
        """Judge each utterance of somebody who should work."""
        state = self.state
        for said in state.prose:
            user = state.exchange == "dialogue" and said.worker == state.workers[0]
            if not user and not said.cut and flake(said.text) and not numbers(said.text):
                yield self.found(said.worker, said.text)


@dataclass
class Echo(Detector, echo=0.8):
    """CAMEL's repeated instruction: what was heard is given back.

    Strength: the share of an utterance's triples that stand in one thing its speaker heard, where no number is new.
    ``inbox``: what arrived in the last round of messages, by (sender, reader).
    """

    inbox: dict[tuple[str, str], str] = field(default_factory=dict)

    def feed(self) -> Iterator[Finding]:
        """Judge each utterance, and each message on a graph that goes back to where it came from."""
        state = self.state
        for message in state.mail:
            heard = self.inbox.get((message.reader, message.sender), "")
            yield from self.compared(message.sender, message.text, message.text, [heard])
        if state.note == "mail":
            self.inbox = {(one.sender, one.reader): one.text for one in state.got if one.n == state.data["n"]}
        for said in state.prose:
            body = said.text.replace(INSTRUCTION, " ").replace(SOLUTION, " ").split("Next request", 1)[0]
            seen = [said.heard] if state.exchange == "dialogue" else self.around(said)
            fresh = numbers(body)  # what holds a new one is no echo, whatever its words
            yield from self.compared(said.worker, said.text, body, [text for text in seen if fresh <= numbers(text)])

    def compared(self, worker: str, text: str, body: str, heard: list[str]) -> Iterator[Finding]:
        """What a text's ``body`` has of what its worker had heard."""
        mine = word_runs(body)
        share = max((len(mine & word_runs(one)) / len(mine) for one in heard), default=0.0) if mine else 0.0
        if share > 0 and len(words(body)) >= SHORT:
            yield self.found(worker, text, share)

    def around(self, said: Utterance) -> list[str]:
        """What somebody who writes on had before its eyes."""
        state = self.state
        texts = [state.prompt, state.private.get(said.worker, "")]
        if state.exchange in ("shared", "chain"):
            texts += [other.text for other in state.said if other.worker != said.worker and other.tick < state.tick]
        return texts


@dataclass
class Loop(Detector, loop=4.0):
    """CAMEL's infinite loop: thanks and goodbyes, or the same again, from everybody.

    Strength: utterances in a row, of at least two workers, that are polite or hold no new triples and numbers.
    ``speakers`` are those of the utterances in a row so far.
    """

    seen: set[tuple[str, ...]] = field(default_factory=set)
    numbers: set[str] = field(default_factory=set)
    speakers: list[str] = field(default_factory=list)

    def feed(self) -> Iterator[Finding]:
        """Judge each utterance as it ends."""
        for said in self.state.closed if self.state.exchange in ("shared", "dialogue") else ():
            mine, found = word_runs(said.text), numbers(said.text)
            old = polite(said.text) or len(mine - self.seen) <= 0.2 * len(mine)
            old = old and found <= self.numbers
            self.seen |= mine
            self.numbers |= found
            self.speakers = [*self.speakers, said.worker] if old else []
            if len(set(self.speakers)) > 1:
                yield self.found("", said.text, len(self.speakers))


class Flip(Detector, flip=1.0):
    """CAMEL's role flipping: the other role's grammar.

    Seen by the other role's mark (Instruction:, Solution:), or by a step under somebody else's name.
    """

    def feed(self) -> Iterator[Finding]:
        """Judge each utterance as it ends."""
        state = self.state
        for said in state.closed:
            if state.exchange == "dialogue":
                user = said.worker == state.workers[0]
                flipped = (SOLUTION if user else INSTRUCTION) in said.text and not (user and INSTRUCTION in said.text)
            else:
                named = set(re.findall(r"\*\*(\w+) \[\d+\]:\*\*", said.text)) - {said.worker}
                flipped = state.exchange == "shared" and bool(named & set(state.workers))
            if flipped:
                yield self.found(said.worker, said.text)


DETECTORS: tuple[type[Detector], ...] = (Repetition, Flake, Echo, Loop, Flip)
