"""Failures of message passing that a trace proves: who fell silent, what never arrived, what came late."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kvorum.lab.detect.detector import Detector, Finding
from kvorum.lab.detect.words import words
from kvorum.store.events import ViewItem


@dataclass
class Crash(Detector, crash=8.0):
    """Somebody gets no more ticks, though it did not end its text and was not told to leave.

    Strength: ticks of others since a worker's last. Or seen by a round or stage without it, or by a talk that breaks
    off within budget. ``ticks``: how many each worker had; ``missed``: how many others had without it.
    """

    ticks: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    had_turn: set[str] = field(default_factory=set)
    speaking: str = ""

    def feed(self) -> Iterator[Finding]:
        """Judge the ticks of those who write on, and the rounds of those who take turns."""
        state = self.state
        here = [row["worker"] for row in state.rows]
        self.ticks.update(here)
        if here and state.exchange == "chain":
            yield from self.stage(here)
        elif here and state.writing and not state.forced:
            for name in self.alive():
                if name not in here:
                    self.missed[name] += 1
                    yield self.found(name, "no tick, no end", self.missed[name])
        elif state.note == "told":
            self.speaking = state.data["worker"]
            self.had_turn.add(self.speaking)
        elif state.note in ("mail", "round"):
            for name in state.workers:
                if name not in self.had_turn and name not in state.left:
                    yield self.found(name, f"no turn in round {state.data['n']}", self.modes["crash"])
            self.had_turn = set()
        elif state.over and state.stopped and not state.spent and self.speaking not in state.left:
            yield self.found(self.speaking, "the talk breaks off", self.modes["crash"])

    def alive(self) -> list[str]:
        """Who has begun, and neither ended its text nor was told to leave."""
        gone = self.state.ended | self.state.left
        return [name for name in self.state.workers if name in self.ticks and name not in gone]

    def stage(self, here: list[str]) -> Iterator[Finding]:
        """In a chain a worker has its turn, up to so many tokens, and then the next one."""
        order, most = self.state.workers, self.state.params.get("text_tokens")
        if self.state.params.get("form", "sequential") != "sequential" and order[-1] not in here:
            return
        for name in self.alive():
            later = any(other in order[order.index(name) + 1 :] for other in here)
            if later and name not in here and isinstance(most, int) and self.ticks[name] < most:
                yield self.found(name, f"stops after {self.ticks[name]} tokens", self.modes["crash"])


@dataclass
class Delivery(Detector, drop=1.0, delay=1.0):
    """A message that never arrives: sent, and in no later round, turn or view of its reader. Or that arrives late: an
    earlier one stands in the place of the last one, or a view ends before its writer's words do.

    By (sender, reader): ``missing``, whether what did not arrive as it was sent came late in the end, and ``waiting``,
    the messages on a graph that have not arrived.
    """

    missing: dict[tuple[str, str], bool] = field(default_factory=dict)
    waiting: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def feed(self) -> Iterator[Finding]:
        """Judge rounds, turns or views; a message that is missing may still come until the end."""
        before = dict(self.missing)
        if self.state.note == "mail":
            self.posted()
        elif self.state.note == "round":
            self.shown()
        elif self.state.note == "told" and self.state.exchange == "dialogue":
            self.heard()
        elif self.state.new_views and not self.state.forced:
            self.looked()
        for (sender, reader), late in self.missing.items():
            if late and not before.get((sender, reader)):
                yield self.found(sender, f"late for {reader}", mode="delay")
            elif not late and self.state.over:
                yield self.found(sender, f"never got to {reader}")

    def lost(self, sender: str, reader: str, late: bool = False) -> None:
        """Keep what is known of a pair: once late, late."""
        self.missing[sender, reader] = late or self.missing.get((sender, reader), False)

    def posted(self) -> None:
        """On a graph: sent in this round, and got in this or a later one."""
        for message in self.state.mail:
            self.waiting[message.sender, message.reader].append(message.text)
        for message in self.state.got:
            if message.n == self.state.data["n"]:
                sent = self.waiting[message.sender, message.reader]
                if message.text in sent[:-1] or (sent and sent[-1] != message.text):
                    self.lost(message.sender, message.reader, late=True)
                if message.text in sent:
                    sent.remove(message.text)
        for pair, sent in self.waiting.items():
            if sent:
                self.lost(*pair)

    def shown(self) -> None:
        """On a board: what a reader saw in the place of what was proposed."""
        for reader, seen in self.state.data.get("changed", {}).items():
            for sender, value in seen.items():
                if value is None or value in [board[sender] for board in self.state.boards[:-1]]:
                    self.lost(sender, reader, late=value is not None)

    def heard(self) -> None:
        """In a dialogue: what the other one said last."""
        reader = self.state.data["worker"]
        given = " ".join(words(self.state.data["text"]))
        others = [said for said in self.state.said if said.worker != reader]
        arrived = [" ".join(words(said.text)) in given for said in others]
        if others and not arrived[-1]:
            self.lost(others[-1].worker, reader, any(arrived))

    def looked(self) -> None:
        """Over a cache: which blocks of the others a view shows, and whether to their ends."""
        params, order, views = self.state.params, self.state.workers, self.state.views
        here = [row["worker"] for row in self.state.rows]
        shared = self.state.exchange == "shared"
        if shared and (params.get("channel"), params.get("layout")) != ("cache", "combined"):
            return
        if not shared and (self.state.exchange != "chain" or params.get("handover") not in ("cache", "both")):
            return
        if not shared and (params.get("arm"), params.get("form")) != ("real", "sequential"):
            return
        for reader in here:
            seen: dict[str, ViewItem] = {item[0]: item for item in views.get(reader, [])[:-1]}
            shown: Sequence[str] = here if shared else order[: order.index(reader)]
            for writer in order:
                if writer == reader or writer not in shown or not views.get(writer):
                    continue
                item = seen.get(views[writer][-1][0])
                if item is None:
                    self.lost(writer, reader)
                elif shared and item[2] is not None:
                    self.lost(writer, reader, late=True)


DETECTORS: tuple[type[Detector], ...] = (Crash, Delivery)
