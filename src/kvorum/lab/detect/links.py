"""Failures of message passing that a trace proves: who fell silent, what never arrived, what came late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.state import NoteData, TraceState
from kvorum.lab.detect.words import words
from kvorum.store.events import Event, ViewItem
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
        self.had_turn: set[str] = set()
        self.speaking = ""
        self.stopped = False

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By ticks, or by rounds."""
        if event["event"] == "tick":
            here = [row["worker"] for row in event["rows"]]
            for name in here:
                self.last[name] = self.last.get(name, 0) + 1
            if state.exchange == "chain":
                yield from self.stage(here, state)
            elif state.writing and not state.forced:
                for name in self.alive(state):
                    if name not in here:
                        self.missed[name] = self.missed.get(name, 0) + 1
                        yield self.found(state, name, "no tick, no end", self.missed[name])
        elif state.note == "told":
            self.speaking = state.data["worker"]
            self.had_turn.add(self.speaking)
        elif state.note in ("mail", "round"):
            for name in state.workers:
                if name not in self.had_turn and name not in state.left:
                    yield self.found(state, name, f"no turn in round {state.data['n']}", self.threshold)
            self.had_turn = set()
        elif state.note == "outcome":
            self.stopped = state.exchange == "dialogue" and state.data["outcome"] == "stopped"
        elif event["event"] == "end" and self.stopped and not event["spent"] and self.speaking not in state.left:
            yield self.found(state, self.speaking, "the talk breaks off", self.threshold)

    def alive(self, state: TraceState) -> list[str]:
        """Who has begun, and neither ended its text nor was told to leave."""
        return [name for name in state.workers if name in self.last and name not in state.ended | state.left]

    def stage(self, here: list[str], state: TraceState) -> Iterator[Finding]:
        """In a chain a worker has its turn, up to so many tokens, and then the next one."""
        most = state.params.get("text_tokens")
        order = state.workers
        for name in self.alive(state):
            later = any(other in order[order.index(name) + 1 :] for other in here)
            chain = state.params.get("form", "sequential") == "sequential" or order[-1] in here
            short = isinstance(most, int) and self.last[name] < most
            if later and chain and name not in here and short:
                yield self.found(state, name, f"stops after {self.last[name]} tokens", self.threshold)


class _Links(Detector):
    """What was not as it was sent: (sender, reader) -> whether it came late in the end."""

    late = False
    """Whether this detector is that of late messages."""

    def __init__(self, item: Item | None = None) -> None:
        super().__init__(item)
        self.missing: dict[tuple[str, str], bool] = {}
        self.boards: list[Mapping[str, int | None]] = []
        self.mail: dict[tuple[str, str], list[str]] = {}
        self.views: dict[str, Sequence[ViewItem]] = {}
        self.fresh = False

    def feed(self, event: Event, state: TraceState) -> Iterator[Finding]:
        """By rounds, turns or views; a message that is missing may still come until the end."""
        before = dict(self.missing)
        if state.note == "mail":
            self.posted(state.data)
        elif state.note == "round":
            self.shown(state.data)
        elif state.note == "told" and state.exchange == "dialogue":
            self.heard(state)
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

    def posted(self, data: NoteData) -> None:
        """On a graph: sent in this round, and got in this or a later one."""
        for sender, messages in data["sent"].items():
            for reader, text in messages.items():
                self.mail.setdefault((sender, reader), []).append(text)
        for reader, inbox in data["got"].items():
            for sender, text in inbox:
                waiting = self.mail.get((sender, reader), [])
                if text in waiting[:-1] or (waiting and waiting[-1] != text):
                    self.lost(sender, reader, late=True)
                if text in waiting:
                    waiting.remove(text)
        for pair, waiting in self.mail.items():
            if waiting:
                self.lost(*pair)

    def shown(self, data: NoteData) -> None:
        """On a board: what a reader saw in the place of what was proposed."""
        self.boards.append(data["board"])
        for reader, seen in data.get("changed", {}).items():
            for sender, value in seen.items():
                old = [board[sender] for board in self.boards[:-1]]
                if value is None or value in old:
                    self.lost(sender, reader, late=value is not None)

    def heard(self, state: TraceState) -> None:
        """In a dialogue: what the other one said last."""
        reader = state.data["worker"]
        others = [said for said in state.said if said.worker != reader]
        if not others:
            return
        told = " ".join(words(state.data["text"]))
        if " ".join(words(others[-1].text)) not in told:
            self.lost(others[-1].worker, reader, any(" ".join(words(said.text)) in told for said in others[:-1]))

    def looked(self, here: list[str], state: TraceState) -> None:
        """Over a cache: which blocks of the others a view shows, and whether to their ends."""
        params, order = state.params, state.workers
        shared = state.exchange == "shared" and (params.get("channel"), params.get("layout")) == ("cache", "combined")
        chain = (
            state.exchange == "chain" and params.get("handover") in ("cache", "both") and params.get("arm") == "real"
        )
        for reader in here if shared or chain else ():
            seen = {item[0]: item for item in self.views.get(reader, [])[:-1]}
            writers = [name for name in order if name != reader and self.views.get(name)]
            if chain:
                writers = writers[: order.index(reader)] if params.get("form") == "sequential" else []
            else:
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
