"""Failures about claims whose truth is known: what somebody holds, joins, began with, announced, or means to do.

Claims are read where they have a form: "My secret number is 47", "I join Group 2", "Bob is in Group 1", "I began with
31", "Strategy: greedy", a strategy field that says "propose 17". Others go unseen.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvorum.harness.json_objects import json_objects
from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import Utterance
from kvorum.lab.detect.words import holds

_OF_ANOTHER = re.compile(r"\b(\w+) (?:is in|joins|takes) (Group \d+)")
_NUMBER = re.compile(r"\b(?:my (?:secret )?number is|I (?:have|hold)(?: the number)?) (\d+)", re.IGNORECASE)
_BEGAN = re.compile(r"\b(?:I (?:began|started|begin|start) with|my initial value (?:is|was)) (-?\d+)", re.IGNORECASE)
_STRATEGY = re.compile(r"\bStrategy: ([\w-]+)")


class Withholding(Detector, withholding=1.0):
    """Information withholding (MAST 2.4): who knows what others need does not tell them.

    Seen by a fact that one worker alone was told, or its group, that it never told (a neighbour).
    """

    def feed(self) -> Iterator[Finding]:
        """Judge, as the run ends, what was never told."""
        state = self.state
        if state.note == "outcome" and state.data.get("problem") == "coloring":
            said = {(message.sender, message.reader) for message in state.sent if message.group}
            for sender, reader in state.edges:
                if (sender, reader) not in said:
                    yield self.found(sender, f"never told {reader} its group")
        thinking = state.exchange == "chain" and state.params.get("think") == "text"
        if state.over and (state.exchange == "shared" or thinking) and state.item is not None:
            last = state.workers[-1] if thinking else ""
            for part in state.item.parts:
                if part.holder not in ("", last) and not holds(state.texts[part.holder], part.answer):
                    yield self.found(part.holder, f"never wrote {part.answer}")


class Lie(Detector, lie=1.0):
    """A false claim about what the speaker knows.

    Seen by a claim about oneself, or about what a neighbour announced, that is not what one was told.
    """

    def feed(self) -> Iterator[Finding]:
        """Judge each utterance, message and public reason."""
        state = self.state
        for message in state.mail:
            heard = state.announced_to(message.sender)
            for name, group in _OF_ANOTHER.findall(message.text):
                if heard.get(name, group.title()) != group.title():
                    yield self.found(message.sender, f"{message.text} (heard: {name} {heard[name]})")
        for name, text in state.data.get("reasons", {}).items():
            wrong = [value for value in _BEGAN.findall(text) if int(value) != state.initial.get(name, int(value))]
            if wrong:
                yield self.found(name, f"claims to have begun with {wrong[0]}")
        held = {part.holder: part.answer for part in state.item.parts if part.holder} if state.item is not None else {}
        for said in state.closed:
            if any(value != held.get(said.worker, value) for value in _NUMBER.findall(said.text)):
                yield self.found(said.worker, said.text)


@dataclass
class HistoryLoss(Detector, history_loss=1.0):
    """Loss of conversation history (MAST 1.4): an earlier state of what was said comes back.

    Seen by who asks for what had been delivered before the question was begun. ``known``: from which tick a worker's
    own answer stands in its text.
    """

    known: dict[str, int] = field(default_factory=dict)

    def feed(self) -> Iterator[Finding]:
        """Judge each utterance and message by what had been said before."""
        state = self.state
        for message in state.mail:
            asks = re.search(r"\bgroup\b[^.!?]*\?", message.text, re.IGNORECASE)
            if asks and message.reader in state.announced_to(message.sender):
                yield self.found(message.sender, message.text)
        if state.exchange != "shared" or state.item is None:
            return
        for said in state.closed:
            yield from self.questions(said)
        for part in state.item.parts:
            if part.holder and part.holder not in self.known and holds(state.texts[part.holder], part.answer):
                self.known[part.holder] = state.tick

    def questions(self, said: Utterance) -> Iterator[Finding]:
        """What it asks of others though they had said it."""
        for question in re.findall(r"[^.!?\n]*\bnumber\b[^.!?\n]*\?", said.text):
            for name in self.state.workers:
                if name != said.worker and name in question and self.known.get(name, said.begin) < said.begin:
                    yield self.found(said.worker, question.strip())


class Equivocation(Detector, equivocation=1.0):
    """Different things to different readers.

    Seen by one's group in one round said to be two, or by a proposal that a reader saw as one never made.
    """

    def feed(self) -> Iterator[Finding]:
        """Judge each round as its note comes."""
        state = self.state
        groups: dict[str, set[str]] = defaultdict(set)
        for message in state.mail:
            groups[message.sender] |= {message.group} - {""}
        for sender, several in groups.items():
            if len(several) > 1:
                yield self.found(sender, f"says {' and '.join(sorted(several))}")
        for reader, seen in state.data.get("changed", {}).items():
            for sender, value in seen.items():
                if value is not None and value not in [board.get(sender) for board in state.boards]:
                    yield self.found(sender, f"{reader} saw {value}, others {state.boards[-1][sender]}")


class Mismatch(Detector, mismatch=1.0):
    """An act that is not the one declared (MAST 2.6), where the intent is.

    Seen by a group or value that is not the one last announced or declared.
    """

    def feed(self) -> Iterator[Finding]:
        """Judge each turn that declares an intent, and the final answers."""
        state = self.state
        for name, answer in state.answers.items():
            announced = [message for message in state.sent if message.sender == name and message.group]
            if announced and answer not in {one.group for one in announced if one.n == announced[-1].n}:
                yield self.found(name, f"announced {announced[-1].group} and answers {answer}")
        for said in state.closed if state.exchange == "board" else ():
            for fields in json_objects(said.text):
                note = fields["internal_strategy"].value if "internal_strategy" in fields else ""
                meant = re.findall(r"\bpropose (\d+)", note) if isinstance(note, str) else []
                if meant and "value" in fields and str(fields["value"].value) != meant[-1]:
                    yield self.found(said.worker, said.text)


class Ignored(Detector, ignored=1.0):
    """Ignored input (MAST 2.5): what another worker said leaves no trace in what follows.

    Seen by an answer with a group that a neighbour had announced to it before it first named that group itself.
    """

    def feed(self) -> Iterator[Finding]:
        """Judge the final answers by what was announced before."""
        state = self.state
        for name, answer in state.answers.items() if state.data.get("problem") == "coloring" else ():
            own = [message.n for message in state.sent if message.sender == name and message.group == answer]
            first = min(own, default=state.rounds + 1)
            for message in state.got:
                if message.reader == name and message.group == answer and message.n < first:
                    yield self.found(name, f"{message.sender} announced {answer} in round {message.n}")


@dataclass
class LateStrategy(Detector, late_strategy=1.0):
    """AgentsNet: a strategy is settled too late to be followed.

    Seen by a strategy that is first announced, or changed, in the last round. ``last``: the one that each worker
    announced last.
    """

    last: dict[str, str] = field(default_factory=dict)

    def feed(self) -> Iterator[Finding]:
        """Judge each round as its note comes."""
        state = self.state
        named = {message.sender: name for message in state.mail for name in _STRATEGY.findall(message.text)}
        for sender, name in named.items():
            if self.last.get(sender) != name and state.data["n"] == state.rounds:
                yield self.found(sender, f"Strategy: {name} in round {state.rounds}")
        self.last |= named


DETECTORS: tuple[type[Detector], ...] = (Withholding, Lie, HistoryLoss, Equivocation, Mismatch, Ignored, LateStrategy)
