"""What a trace shows, event by event: who says what, to what, and when. All that detectors go by.

Injected faults and the list of them in the start event are not looked at. An utterance is a turn in programs that give
turns, and up to an empty line where workers write on. Words that a worker was given, forced answers, and the members of
a shadow team are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, cast

from kvorum.harness.shadow import SHADOW
from kvorum.lab.measure.worker_text import FORCED
from kvorum.programs import REGISTRY
from kvorum.runs.parameters import Value
from kvorum.runs.program import Exchange
from kvorum.store.events import Event, StartEvent, TickRow


class NoteData(TypedDict, total=False):
    """What the notes of programs hold that detectors read, each note some of it; ``n`` is the round."""

    worker: str
    text: str
    n: int
    edges: Sequence[tuple[str, str]]
    rounds: int
    sent: Mapping[str, Mapping[str, str]]
    """Of a round of messages: sender -> reader -> text."""
    got: Mapping[str, Sequence[tuple[str, str]]]
    """Of a round of messages: reader -> (sender, text)."""
    initial: Mapping[str, int]
    board: Mapping[str, int | None]
    """Of a round of proposals: worker -> value."""
    changed: Mapping[str, Mapping[str, int | None]]
    """Reader -> sender -> the value that it saw in place of the board's."""
    votes: Mapping[str, str]
    reasons: Mapping[str, str]
    problem: str
    outcome: str
    answers: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a worker said at a time. ``heard``: what its turn told it; ``ended``: it ended its text itself;
    ``cut``: the run ended in its midst."""

    worker: str
    text: str
    begin: int
    tick: int
    heard: str = ""
    ended: bool = False
    cut: bool = False


@dataclass
class TraceState:
    """The state of a run as far as its trace has been fed."""

    exchange: Exchange = "none"
    """How the program lets workers hear of each other."""
    workers: list[str] = field(default_factory=list)
    prompt: str = ""
    private: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Value] = field(default_factory=dict)
    """The program's, defaults too."""
    note: str = ""
    """The kind of the note that the last event was; "" for every other event."""
    data: NoteData = field(default_factory=NoteData)
    """What this note holds."""
    tick: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    """All that each worker wrote."""
    closed: list[Utterance] = field(default_factory=list)
    """Utterances that the last event closed."""
    said: list[Utterance] = field(default_factory=list)
    """All closed ones."""
    ended: set[str] = field(default_factory=set)
    """Who has ended its text itself, and has not gone on since."""
    left: set[str] = field(default_factory=set)
    """Who was asked to leave."""
    forced: bool = False
    """Whether somebody is made to answer."""
    over: bool = False

    def __post_init__(self) -> None:
        self._open: dict[str, tuple[str, int]] = {}
        self._heard: dict[str, str] = {}
        self._ends: set[int] = set()

    @property
    def writing(self) -> bool:
        """Whether workers write on, in no turns."""
        return self.exchange in ("independent", "shared", "chain")

    @property
    def talking(self) -> bool:
        """Whether the program's texts are prose of its workers, not messages or votes in a form."""
        return self.writing or self.exchange == "dialogue"

    def feed(self, event: Event) -> None:
        """Take up the next event."""
        self.closed, self.note, self.data = [], "", {}
        if event["event"] == "start":
            self._start(event)
        elif event["event"] == "tick":
            self.tick = int(event["n"])
            for row in event["rows"]:
                self._row(row)
        elif event["event"] == "command" and event["kind"] == "leave":
            self.left.add(event["worker"])
        elif event["event"] == "note":
            self.note, self.data = event["kind"], cast("NoteData", event)
            if self.note in ("outcome", "round", "mail") or (self.note == "told" and not self.writing):
                self._close_all()
            if self.note == "told" and not self.writing:
                self._heard[self.data["worker"]] = self.data["text"]
        elif event["event"] == "end":
            self.over = True
            self._close_all()

    def _start(self, event: StartEvent) -> None:
        self.workers = list(event["workers"])
        self.prompt, self.private = event["task"]["prompt"], event["task"].get("private", {})
        self.params = event["params"]
        if (program := REGISTRY.get(event["program"])) is not None:
            self.exchange = program.exchange
            self.params = {**program.params, **event["params"]}
        self._ends = set(event.get("ends", ()))
        self.texts = dict.fromkeys(self.workers, "")

    def _row(self, row: TickRow) -> None:
        name = row["worker"]
        self.forced |= FORCED in row.get("given", "")
        if self.forced or name.endswith(SHADOW) or name not in self.texts:
            return
        ended = row["token"] in self._ends
        self.ended = self.ended | {name} if ended else self.ended - {name}
        text, begin = self._open.get(name, ("", self.tick))
        begin = begin if text.strip() else self.tick
        text += row["text"]
        self.texts[name] += row["text"]
        self._open[name] = (text, begin)
        if ended:
            self._close(name, text)
        elif self.writing and "\n\n" in text.lstrip():
            before, _, rest = text.lstrip().partition("\n\n")
            self._close(name, before)
            if rest:
                self._open[name] = (rest, self.tick)

    def _close(self, name: str, text: str) -> None:
        _, begin = self._open.pop(name)
        if text.strip():
            heard, ended = self._heard.get(name, ""), name in self.ended
            utterance = Utterance(name, text.strip(), begin, self.tick, heard, ended, self.over)
            self.closed.append(utterance)
            self.said.append(utterance)

    def _close_all(self) -> None:
        for name, (text, _) in list(self._open.items()):
            self._close(name, text)
