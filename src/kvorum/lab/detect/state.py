"""What a trace shows, event by event: who says what, to what, and when. All that detectors go by.

Injected faults and the list of them in the start event are not looked at. An utterance is a turn in programs that give
turns, and up to an empty line where workers write on. Words that a worker was given, forced answers, and the members of
a shadow team are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvorum.harness.shadow import SHADOW
from kvorum.lab.measure.worker_text import FORCED
from kvorum.programs import REGISTRY
from kvorum.store.traces import Event

WRITING = ("solo", "vote", "hogwild", "relay")
"""Programs whose workers write on; in the others they take turns."""


def note_of(event: Event) -> str:
    """The kind of a note; "" for every other event."""
    return str(event["kind"]) if event["event"] == "note" else ""


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

    program: str = ""
    workers: list[str] = field(default_factory=list)
    prompt: str = ""
    private: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    """The program's, defaults too."""
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
    """Who was told to leave."""
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
        return self.program in WRITING

    @property
    def talking(self) -> bool:
        """Whether the program's texts are prose of its workers, not messages or votes in a form."""
        return self.writing or self.program == "roleplay"

    def feed(self, event: Event) -> None:
        """Take up the next event."""
        self.closed = []
        kind = event["event"]
        if kind == "start":
            self.program, self.workers = event["program"], list(event["workers"])
            self.prompt, self.private = event["task"]["prompt"], event["task"].get("private", {})
            known = REGISTRY.get(self.program)
            self.params = (dict(known.params) if known else {}) | event["params"]
            self._ends = set(event.get("ends", ()))
            self.texts = dict.fromkeys(self.workers, "")
        elif kind == "tick":
            self.tick = int(event["n"])
            for row in event["rows"]:
                self._row(row)
        elif kind == "command" and event["kind"] == "leave":
            self.left.add(event["worker"])
        elif kind == "note" and event["kind"] == "told" and not self.writing:
            self._close_all()
            self._heard[event["worker"]] = event["text"]
        elif (kind == "note" and event["kind"] in ("outcome", "round", "mail")) or kind == "end":
            self.over = kind == "end"
            self._close_all()

    def _row(self, row: Mapping[str, Any]) -> None:
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
            found = Utterance(name, text.strip(), begin, self.tick, heard, ended, self.over)
            self.closed.append(found)
            self.said.append(found)

    def _close_all(self) -> None:
        for name, (text, _) in list(self._open.items()):
            self._close(name, text)
