"""What a trace shows, event by event: who says what, to what, and when. All that detectors go by.

Injected faults and the list of them in the start event are not looked at. An utterance is a turn in programs that give
turns, and up to an empty line where workers write on. Words that a worker was given, forced answers, and the members of
a shadow team are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, cast

from kvorum.harness.answers import asks_for_answer
from kvorum.harness.shadow_team import SHADOW
from kvorum.programs import REGISTRY
from kvorum.runs.parameters import Value
from kvorum.runs.program import Exchange
from kvorum.store.events import Event, StartEvent, TickRow, ViewItem
from kvorum.tasks.item import Item

_JOINS = re.compile(r"\bI (?:am in|join|take|choose|will join|will be in) (Group \d+)", re.IGNORECASE)


class NoteData(TypedDict, total=False):
    """What the notes of programs hold that detectors read, each note some of it.

    ``n`` is the round. Of a round of messages: ``sent``, sender -> reader -> text, and ``got``, reader -> (sender,
    text). Of a round of proposals: ``board``, worker -> value, and ``changed``, reader -> sender -> the value that it
    saw in place of the board's.
    """

    worker: str
    text: str
    n: int
    edges: Sequence[tuple[str, str]]
    rounds: int
    sent: Mapping[str, Mapping[str, str]]
    got: Mapping[str, Sequence[tuple[str, str]]]
    initial: Mapping[str, int]
    board: Mapping[str, int | None]
    changed: Mapping[str, Mapping[str, int | None]]
    votes: Mapping[str, str]
    reasons: Mapping[str, str]
    problem: str
    outcome: str
    answers: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a worker said, from the tick ``begin`` to ``tick``. ``heard``: what its turn told it; ``cut``: the run ended
    in its midst."""

    worker: str
    text: str
    begin: int
    tick: int
    heard: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message on a graph in the round ``n``, which its sender wrote or its reader got."""

    n: int
    sender: str
    reader: str
    text: str

    @property
    def group(self) -> str:
        """The group that it announces for its sender, the last one if there are several; "" without one."""
        found = _JOINS.findall(self.text)
        return str(found[-1]).title() if found else ""


@dataclass
class TraceState:
    """The state of a run as far as its trace has been fed.

    Of the run: ``item``, its problem (None where it is not known); ``exchange``, how its program lets workers hear of
    each other; ``params``, the program's, defaults too; ``forced``, whether somebody is made to answer; ``stopped``,
    whether a dialogue ended before its own rules ended it; ``spent``, whether a limit ended it.

    Of the last event: ``rows``, the workers' rows if it was a tick; ``note`` and ``data``, the kind of a note and what
    it holds, else "" and nothing; ``outside``, whether it came from outside the model, such as a tool's result;
    ``closed``, the utterances that it closed; ``new_views``, whether it was the first tick with views that changed.

    Of the workers: ``texts``, all that each wrote; ``said``, all closed utterances; ``ended``, who has ended its text
    itself and not gone on since; ``left``, who was asked to leave; ``views``, what each sees.

    On a graph, and in a game of values: ``edges``, who may write to whom, as (sender, reader), in ``rounds`` rounds in
    all; ``sent`` and ``got``, all messages so far as they were written and as they arrived; ``initial``, what each
    began with; ``boards``, what each proposed, by rounds.
    """

    item: Item | None = None
    exchange: Exchange = "none"
    workers: list[str] = field(default_factory=list)
    prompt: str = ""
    private: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Value] = field(default_factory=dict)
    forced: bool = False
    stopped: bool = False
    spent: bool = False
    over: bool = False

    tick: int = 0
    rows: Sequence[TickRow] = ()
    note: str = ""
    data: NoteData = field(default_factory=NoteData)
    outside: bool = False
    closed: list[Utterance] = field(default_factory=list)
    new_views: bool = False

    texts: dict[str, str] = field(default_factory=dict)
    said: list[Utterance] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    views: dict[str, Sequence[ViewItem]] = field(default_factory=dict)

    edges: list[tuple[str, str]] = field(default_factory=list)
    rounds: int = 0
    sent: list[Message] = field(default_factory=list)
    got: list[Message] = field(default_factory=list)
    initial: Mapping[str, int] = field(default_factory=dict)
    boards: list[Mapping[str, int | None]] = field(default_factory=list)

    _open: dict[str, tuple[str, int]] = field(default_factory=dict)  # what is being said, and since when
    _heard: dict[str, str] = field(default_factory=dict)
    _ends: set[int] = field(default_factory=set)
    _changed: bool = False  # views, since the last tick

    @property
    def writing(self) -> bool:
        """Whether workers write on, in no turns."""
        return self.exchange in ("independent", "shared", "chain")

    @property
    def prose(self) -> list[Utterance]:
        """Those that the last event closed, where they are prose and not messages or votes in a form."""
        return self.closed if self.writing or self.exchange == "dialogue" else []

    @property
    def mail(self) -> list[Message]:
        """The messages that were written in the round that the last event was."""
        return [one for one in self.sent if one.n == self.data["n"]] if self.note == "mail" else []

    @property
    def answers(self) -> dict[str, str]:
        """Who answered what, in the end, on a graph."""
        answers = self.data.get("answers", {}) if self.note == "outcome" else {}
        return {name: answer for name, answer in answers.items() if answer}

    def announced_to(self, reader: str) -> dict[str, str]:
        """The groups that a reader's neighbours had announced to it before this round, the last one of each."""
        return {m.sender: m.group for m in self.got if m.reader == reader and m.n < self.data["n"] and m.group}

    def feed(self, event: Event) -> None:
        """Take up the next event; what it shows stands in the fields afterwards."""
        self.closed, self.rows, self.note, self.data = [], (), "", {}
        self.outside, self.new_views = event["event"] == "outside", False
        if event["event"] == "start":
            self._start(event)
        elif event["event"] == "tick":
            self.tick, self.rows = int(event["n"]), event["rows"]
            self.new_views, self._changed = self._changed, False
            for row in event["rows"]:
                self._row(row)
        elif event["event"] == "command" and event["kind"] == "leave":
            self.left.add(event["worker"])
        elif event["event"] == "note":
            self._note(event["kind"], cast("NoteData", event))
        elif event["event"] == "view":
            self.views[event["worker"]], self._changed = event["items"], True
        elif event["event"] == "end":
            self.over, self.spent = True, bool(event["spent"])
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

    def _note(self, kind: str, data: NoteData) -> None:
        self.note, self.data = kind, data
        if kind in ("outcome", "round", "mail") or (kind == "told" and not self.writing):
            self._close_all()
        if kind == "told" and not self.writing:
            self._heard[data["worker"]] = data["text"]
        elif kind == "network":
            there = [(one, other) for one, other in data["edges"]]
            self.edges, self.rounds = there + [(other, one) for one, other in there], data["rounds"]
        elif kind == "mail":
            for sender, messages in data["sent"].items():
                self.sent += [Message(data["n"], sender, reader, text) for reader, text in messages.items()]
            for reader, inbox in data["got"].items():
                self.got += [Message(data["n"], sender, reader, text) for sender, text in inbox]
        elif kind == "game":
            self.initial = dict(data["initial"])
        elif kind == "outcome":
            self.stopped = self.exchange == "dialogue" and data["outcome"] == "stopped"
        elif kind == "round":
            self.boards.append(dict(data["board"]))

    def _row(self, row: TickRow) -> None:
        name = row["worker"]
        self.forced |= asks_for_answer(row.get("given", ""))
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
            said = Utterance(name, text.strip(), begin, self.tick, self._heard.get(name, ""), self.over)
            self.closed.append(said)
            self.said.append(said)

    def _close_all(self) -> None:
        for name, (text, _) in list(self._open.items()):
            self._close(name, text)
