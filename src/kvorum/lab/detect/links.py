"""Failures of message passing that a trace proves: who fell silent, what never arrived, what came late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import TraceState, note_of
from kvorum.lab.detect.words import words
from kvorum.store.traces import Event
from kvorum.tasks.item import Item


class Crash(Detector):
    """Somebody gets no more ticks, though it did not end its text and was not told to leave."""

    mode = "crash"
    signal = "ticks of others since a worker's last; a round or stage without it; a talk that breaks off within budget"
    threshold = 8.0

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.last: dict[str, int] = {}
        self.missed: dict[str, int] = {}
        self.told: set[str] = set()
        self.speaking = ""
        self.stopped = False

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By ticks, or by rounds."""
        kind, note = event["event"], note_of(event)
        if kind == "tick":
            here = [row["worker"] for row in event["rows"]]
            for name in here:
                self.last[name] = self.last.get(name, 0) + 1
            if state.program == "relay":
                yield from self.stage(here, state)
            elif state.program in ("hogwild", "vote") and not state.forced:
                for name in self.alive(state):
                    if name not in here:
                        self.missed[name] = self.missed.get(name, 0) + 1
                        yield self.found(state, name, "no tick, no end", self.missed[name])
        elif note == "told":
            self.told.add(event["worker"])
            self.speaking = event["worker"]
        elif note in ("mail", "round"):
            for name in state.workers:
                if name not in self.told and name not in state.left:
                    yield self.found(state, name, f"no turn in round {event['n']}", self.threshold)
            self.told = set()
        elif note == "outcome":
            self.stopped = state.program == "roleplay" and event["outcome"] == "stopped"
        elif kind == "end" and self.stopped and not event["spent"] and self.speaking not in state.left:
            yield self.found(state, self.speaking, "the talk breaks off", self.threshold)

    def alive(self, state: TraceState) -> list[str]:
        """Who has begun, and neither ended its text nor was told to leave."""
        return [name for name in state.workers if name in self.last and name not in state.ended | state.left]

    def stage(self, here: list[str], state: TraceState) -> Iterator[Finding]:
        """In a chain a worker has its turn, up to so many tokens, and then the next one."""
        most = int(state.params.get("text_tokens", 0))
        order = state.workers
        for name in self.alive(state):
            later = any(other in order[order.index(name) + 1 :] for other in here)
            chain = state.params.get("form", "sequential") == "sequential" or order[-1] in here
            if later and chain and name not in here and self.last[name] < most:
                yield self.found(state, name, f"stops after {self.last[name]} tokens", self.threshold)


class _Links(Detector):
    """What was not as it was sent: (sender, reader) -> whether it came late in the end."""

    late = False
    """Whether this detector is that of late messages."""

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.missing: dict[tuple[str, str], bool] = {}
        self.boards: list[dict[str, int | None]] = []
        self.mail: dict[tuple[str, str], list[str]] = {}
        self.views: dict[str, list[Any]] = {}
        self.fresh = False

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By rounds, turns or views; a message that is missing may still come until the end."""
        note = note_of(event)
        before = dict(self.missing)
        if note == "mail":
            self.posted(event)
        elif note == "round":
            self.shown(event)
        elif note == "told" and state.program == "roleplay":
            self.heard(event, state)
        elif event["event"] == "view":
            self.views[event["worker"]], self.fresh = event["items"], True
        elif event["event"] == "tick" and self.fresh and not state.forced:
            self.fresh = False
            self.looked([row["worker"] for row in event["rows"]], state)
        for (sender, reader), late in self.missing.items():
            if late and self.late and not before.get((sender, reader)):
                yield self.found(state, sender, f"late for {reader}")
            elif not late and not self.late and event["event"] == "end":
                yield self.found(state, sender, f"never got to {reader}")

    def lost(self, sender: str, reader: str, late: bool = False) -> None:
        """Keep what is known of a pair: once late, late."""
        self.missing[sender, reader] = late or self.missing.get((sender, reader), False)

    def posted(self, event: Event) -> None:
        """On a graph: sent in this round, and got in this or a later one."""
        for sender, messages in event["sent"].items():
            for reader, text in messages.items():
                self.mail.setdefault((sender, reader), []).append(text)
        for reader, inbox in event["got"].items():
            for sender, text in inbox:
                waiting = self.mail.get((sender, reader), [])
                if text in waiting[:-1] or (waiting and waiting[-1] != text):
                    self.lost(sender, reader, late=True)
                if text in waiting:
                    waiting.remove(text)
        for pair, waiting in self.mail.items():
            if waiting:
                self.lost(*pair)

    def shown(self, event: Event) -> None:
        """On a board: what a reader saw in the place of what was proposed."""
        self.boards.append(event["board"])
        for reader, seen in event.get("changed", {}).items():
            for sender, value in seen.items():
                old = [board[sender] for board in self.boards[:-1]]
                if value is None or value in old:
                    self.lost(sender, reader, late=value is not None)

    def heard(self, event: Event, state: TraceState) -> None:
        """In a talk of two: what the other one said last."""
        reader = event["worker"]
        others = [said for said in state.said if said.worker != reader]
        if not others:
            return
        told = " ".join(words(event["text"]))
        if " ".join(words(others[-1].text)) not in told:
            self.lost(others[-1].worker, reader, any(" ".join(words(said.text)) in told for said in others[:-1]))

    def looked(self, here: list[str], state: TraceState) -> None:
        """Over a cache: which blocks of the others a view shows, and whether to their ends."""
        shared = state.program == "hogwild" and state.params.get("channel") == "cache"
        chain = state.program == "relay" and state.params.get("handover") in ("cache", "both")
        if not shared and not (chain and state.params.get("arm") == "real"):
            return
        if shared and state.params.get("layout") != "combined":
            return
        order = state.workers
        for reader in here:
            seen = {item[0]: item for item in self.views.get(reader, [])[:-1]}
            writers = [name for name in order if name != reader and self.views.get(name)]
            if chain:
                writers = writers[: order.index(reader)] if state.params.get("form") == "sequential" else []
            elif shared:
                writers = [name for name in writers if name in here]
            for writer in writers:
                item = seen.get(self.views[writer][-1][0])
                if item is None:
                    self.lost(writer, reader)
                elif shared and item[2] is not None:
                    self.lost(writer, reader, late=True)


class Drop(_Links):
    """A message that never arrives."""

    mode = "drop"
    signal = "sent, and in no later round, turn or view of its reader"


class Delay(_Links):
    """A message that arrives late."""

    mode = "delay"
    signal = "an earlier message in the place of the last one; a view that ends before its writer's words do"
    late = True


DETECTORS: tuple[type[Detector], ...] = (Crash, Drop, Delay)
