"""Failures about claims whose truth is known: what somebody holds, joins, began with, announced, or means to do.

Claims are read where they have a form: "My secret number is 47", "I join Group 2", "Bob is in Group 1", "I began with
31", "Strategy: greedy", a strategy field that says "propose 17". Others go unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kvorum.harness.objects import objects
from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import TraceState, Utterance
from kvorum.lab.detect.words import holds
from kvorum.store.events import Event
from kvorum.tasks.item import Item

_JOINS = re.compile(r"\bI (?:am in|join|take|choose|will join|will be in) (Group \d+)", re.IGNORECASE)
_NUMBER = re.compile(r"\b(?:my (?:secret )?number is|I (?:have|hold)(?: the number)?) (\d+)", re.IGNORECASE)
_BEGAN = re.compile(r"\b(?:I (?:began|started|begin|start) with|my initial value (?:is|was)) (-?\d+)", re.IGNORECASE)
_STRATEGY = re.compile(r"\bStrategy: ([\w-]+)")


def joins(text: str) -> str | None:
    """The group that a message announces for its sender, the last one if there are several."""
    found = _JOINS.findall(text)
    return found[-1].title() if found else None


class _OnGraph(Detector):
    """What was announced on a graph, to whom and in which round."""

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.own: dict[str, list[tuple[int, str, str]]] = {}
        """Sender -> (round, reader, group)."""
        self.got: dict[str, list[tuple[int, str, str]]] = {}
        """Reader -> (round, sender, group)."""
        self.edges: list[tuple[str, str]] = []
        self.rounds = 0

    def take(self, state: TraceState) -> None:
        """Take up a note about the graph or of a round of messages."""
        data = state.data
        if state.note == "network":
            self.edges, self.rounds = [(a, b) for a, b in data["edges"]], data["rounds"]
        elif state.note == "mail":
            for sender, messages in data["sent"].items():
                for reader, text in messages.items():
                    if group := joins(text):
                        self.own.setdefault(sender, []).append((data["n"], reader, group))
            for reader, inbox in data["got"].items():
                for sender, text in inbox:
                    if group := joins(text):
                        self.got.setdefault(reader, []).append((data["n"], sender, group))


class Withholding(_OnGraph):
    """Information withholding (MAST 2.4): who knows what others need does not tell them."""

    mode = "withholding"
    signal = "a fact that one worker alone was told, or its group, that it never told (a neighbour)"

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Judge, as the run ends, what was never told."""
        self.take(state)
        if state.note == "outcome" and state.data.get("problem") == "coloring":
            for sender, reader in [*self.edges, *((b, a) for a, b in self.edges)]:
                if reader not in {to for _, to, _ in self.own.get(sender, [])}:
                    yield self.found(state, sender, f"never told {reader} its group")
        thinking = state.exchange == "chain" and state.params.get("think") == "text"
        if event["event"] == "end" and (state.exchange == "shared" or thinking) and self.item is not None:
            last = state.workers[-1] if thinking else ""
            for part in self.item.parts:
                if part.holder not in ("", last) and not holds(state.texts[part.holder], part.answer):
                    yield self.found(state, part.holder, f"never wrote {part.answer}")


class Lie(_OnGraph):
    """A false claim about what the speaker knows."""

    mode = "lie"
    signal = "a claim about oneself, or about what a neighbour announced, that is not what one was told"

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.initial: dict[str, int] = {}

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By each utterance, message, or public reason."""
        data = state.data
        if state.note == "mail":
            for sender, messages in data["sent"].items():
                heard = {name: group for _, name, group in self.got.get(sender, [])}
                for text in messages.values():
                    for name, group in re.findall(r"\b(\w+) (?:is in|joins|takes) (Group \d+)", text):
                        if heard.get(name, group.title()) != group.title():
                            yield self.found(state, sender, f"{text} (heard: {name} {heard[name]})")
        self.take(state)
        if state.note == "game":
            self.initial = dict(data["initial"])
        elif state.note == "round":
            for name, text in data.get("reasons", {}).items():
                wrong = [value for value in _BEGAN.findall(text) if int(value) != self.initial.get(name, int(value))]
                if wrong:
                    yield self.found(state, name, f"claims to have begun with {wrong[0]}")
        held = {part.holder: part.answer for part in self.item.parts if part.holder} if self.item is not None else {}
        for said in state.closed:
            wrong = [value for value in _NUMBER.findall(said.text) if value != held.get(said.worker, value)]
            if wrong:
                yield self.found(state, said.worker, said.text)


class HistoryLoss(_OnGraph):
    """Loss of conversation history (MAST 1.4): an earlier state of what was said comes back."""

    mode = "history_loss"
    signal = "asks for what had been delivered before the question was begun"

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.known: dict[str, int] = {}

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By each utterance or message."""
        if state.note == "mail":
            for sender, messages in state.data["sent"].items():
                heard = {name for _, name, _ in self.got.get(sender, [])}
                for reader, text in messages.items():
                    if reader in heard and re.search(r"\bgroup\b[^.!?]*\?", text, re.IGNORECASE):
                        yield self.found(state, sender, text)
        self.take(state)
        if state.exchange != "shared" or self.item is None:
            return
        for said in state.closed:
            yield from self.questions(said, state)
        for part in self.item.parts:
            if part.holder and part.holder not in self.known and holds(state.texts[part.holder], part.answer):
                self.known[part.holder] = state.tick

    def questions(self, said: Utterance, state: TraceState) -> Iterator[Finding]:
        """What it asks of others."""
        for question in re.findall(r"[^.!?\n]*\bnumber\b[^.!?\n]*\?", said.text):
            for name in state.workers:
                if name != said.worker and name in question and self.known.get(name, said.begin) < said.begin:
                    yield self.found(state, said.worker, question.strip())


class Equivocation(Detector):
    """Different things to different readers."""

    mode = "equivocation"
    signal = "one's group in one round said to be two; a proposal that a reader saw as one never made"

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.made: dict[str, set[int | None]] = {}

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Judge each round as its note comes."""
        data = state.data
        if state.note == "mail":
            for sender, messages in data["sent"].items():
                groups = {group for text in messages.values() if (group := joins(text))}
                if len(groups) > 1:
                    yield self.found(state, sender, f"says {' and '.join(sorted(groups))}")
        elif state.note == "round":
            for name, value in data["board"].items():
                self.made.setdefault(name, {None}).add(value)
            for reader, seen in data.get("changed", {}).items():
                for sender, value in seen.items():
                    if value not in self.made[sender]:
                        yield self.found(state, sender, f"{reader} saw {value}, others {data['board'][sender]}")


class Mismatch(_OnGraph):
    """MAST 2.6, where the intent is declared."""

    mode = "mismatch"
    signal = "a group or value that is not the one last announced or declared"

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By each declared turn, or the final answers."""
        self.take(state)
        if state.note == "outcome":
            for name, answer in state.data.get("answers", {}).items():
                said = self.own.get(name, [])
                if said and answer and answer not in {group for n, _, group in said if n == said[-1][0]}:
                    yield self.found(state, name, f"announced {said[-1][2]} and answers {answer}")
        for said_now in state.closed if state.exchange == "board" else ():
            for fields in objects(said_now.text):
                note = fields["internal_strategy"].value if "internal_strategy" in fields else ""
                meant = re.findall(r"\bpropose (\d+)", note) if isinstance(note, str) else []
                if meant and "value" in fields and str(fields["value"].value) != meant[-1]:
                    yield self.found(state, said_now.worker, said_now.text)


class Ignored(_OnGraph):
    """Ignored input (MAST 2.5): what another worker said leaves no trace in what follows."""

    mode = "ignored"
    signal = "answers with a group that a neighbour had announced to it before it first named that group itself"

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Judge the final answers by what was announced before."""
        self.take(state)
        if state.note != "outcome" or state.data.get("problem") != "coloring":
            return
        for name, answer in state.data["answers"].items():
            mine = min((n for n, _, group in self.own.get(name, []) if group == answer), default=self.rounds + 1)
            for n, sender, group in self.got.get(name, []):
                if group == answer and n < mine:
                    yield self.found(state, name, f"{sender} announced {group} in round {n}")


class LateStrategy(Detector):
    """AgentsNet: a strategy is settled too late to be followed."""

    mode = "late_strategy"
    signal = "a strategy that is first announced, or changed, in the last round"

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.changed: dict[str, tuple[int, str]] = {}
        self.rounds = 0

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """Judge each round as its note comes."""
        data = state.data
        if state.note == "network":
            self.rounds = data["rounds"]
        elif state.note == "mail":
            for sender, messages in data["sent"].items():
                for name in _STRATEGY.findall(" ".join(messages.values()))[-1:]:
                    if self.changed.get(sender, (0, ""))[1] != name:
                        self.changed[sender] = (data["n"], name)
                        if data["n"] == self.rounds:
                            yield self.found(state, sender, f"Strategy: {name} in round {data['n']}")


DETECTORS: tuple[type[Detector], ...] = (
    Withholding,
    Lie,
    HistoryLoss,
    Equivocation,
    Mismatch,
    Ignored,
    LateStrategy,
)
