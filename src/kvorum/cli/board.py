"""What a run looks like so far, gathered from its events: one lane per worker, with steps of thought.

A board knows nothing of terminals; `panes`, `stream` and `summary` show it. Text of the model is made harmless here:
control characters, which could command a terminal, are left out.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_RATE_SECONDS = 10.0
_QUIET_TICKS = 4


def harmless(text: str) -> str:
    """``text`` without what a terminal would obey; tabs become spaces."""
    return _CONTROLS.sub("", text.replace("\t", "    "))


@dataclass(slots=True, eq=False)
class Line:
    """A line of a lane: runs of (text, whether it was given to the worker and not its own)."""

    step: Step
    runs: list[tuple[str, bool]] = field(default_factory=list)
    cache: tuple[Any, Any] | None = None
    """What it looks like, kept by whoever shows it: (key, lines)."""

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.runs)


@dataclass(slots=True, eq=False)
class Step:
    """A step of thought: ``number`` where the program counts them; ``done`` once it has moved to the history."""

    number: int
    lines: list[Line] = field(default_factory=list)
    done: bool = False


@dataclass(slots=True, eq=False)
class Lane:
    """One worker: its steps and lines in order, the text and number of the tokens it picked, when it last did.

    ``name``: as it may be printed.
    """

    name: str
    index: int
    steps: list[Step] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    tokens: int = 0
    seen: int = 0
    moved: int = 0

    def open_step(self) -> Step:
        """The step that is being written."""
        if not self.steps or self.steps[-1].done:
            self.steps.append(Step(len(self.steps) + 1))
        return self.steps[-1]

    def write(self, text: str, given: bool) -> None:
        """Put text at the end; empty lines at the beginning of a step are left out, several in a row become one."""
        step = self.open_step()
        for at, piece in enumerate(harmless(text).split("\n")):
            if at and step.lines and (step.lines[-1].text.strip() or len(step.lines) == 1):
                self._new_line(step)
            if piece:
                line = step.lines[-1] if step.lines else self._new_line(step)
                line.runs.append((piece, given))
                line.cache = None

    def _new_line(self, step: Step) -> Line:
        line = Line(step)
        step.lines.append(line)
        self.lines.append(line)
        return line


class Board:
    """The state of a run, fed with its events; safe to read from another thread while ``lock`` is held.

    Args:
        clock: the time of a tick in seconds; default the wall clock, a shown trace has its own.
    """

    def __init__(self, clock: Callable[[Event], float] | None = None) -> None:
        self.lock = threading.Lock()
        self.lanes: dict[str, Lane] = {}
        self.start: Event = {}
        self.end: Event = {}
        self.status = "starting"
        self.ledger: Callable[[], Mapping[str, float]] | None = None
        """The run's ledger as it now is, where there is a run."""
        self.ticks = 0
        self.decoded = 0
        self.found: str | None = None
        """Who said the answer, where the program told."""
        self.votes: dict[str, str] = {}
        self._clock = clock or (lambda event: time.monotonic())
        self._stamps: deque[tuple[float, int]] = deque()
        self._first = 0.0

    # -- what came in ------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        """Take up one event of the trace."""
        with self.lock:
            kind = event["event"]
            if kind == "start":
                self.start = event
                for name in event["workers"]:
                    self._lane(name)
                self._first = self._clock(event)
                self._stamps.append((self._first, 0))
            elif kind == "tick":
                self._tick(event)
            elif kind == "forward":
                self._stamp(event)
            elif kind == "move":
                self._move(event["worker"])
            elif kind == "note":
                self._note(event)
            elif kind == "end":
                self.end = event

    def _lane(self, name: str) -> Lane:
        if name not in self.lanes:
            self.lanes[name] = Lane(harmless(name).replace("\n", " "), len(self.lanes), seen=self.ticks)
        return self.lanes[name]

    def _tick(self, event: Event) -> None:
        self.ticks = event["n"] + 1
        prompt = self.start.get("task", {}).get("prompt", "").strip()
        for row in event["rows"]:
            lane = self._lane(row["worker"])
            given = row.get("given", "")
            if given and not (prompt and prompt in given):  # the prompt is known to who asked
                number = re.match(rf"\s*\*\*{re.escape(lane.name)} \[(\d+)\]:\*\* ?", given)
                if number:
                    lane.open_step().number = int(number[1])
                    given = f"[{number[1]}] {given[number.end() :]}"
                lane.write(given, True)
            lane.write(row["text"], False)
            lane.said.append(row["text"])
            lane.tokens += 1
            lane.seen = self.ticks
        self.decoded += len(event["rows"])
        self._stamp(event)

    def _stamp(self, event: Event) -> None:
        self._stamps.append((self._clock(event), self.decoded))
        while len(self._stamps) > 2 and self._stamps[-1][0] - self._stamps[0][0] > _RATE_SECONDS:
            self._stamps.popleft()

    def _move(self, name: str) -> None:
        lane = self._lane(name)
        if lane.steps:
            lane.steps[-1].done = True
            lane.moved += 1

    def _note(self, event: Event) -> None:
        if event["kind"] == "found":
            self.found = event.get("worker")
        elif event["kind"] == "votes":
            self.votes = dict(event.get("answers", {}))

    # -- what it amounts to ------------------------------------------------------------------------------------

    @property
    def speed(self) -> float:
        """Tokens per second over the last seconds."""
        (then, before), (now, after) = (self._stamps[0], self._stamps[-1]) if self._stamps else ((0.0, 0), (0.0, 0))
        return (after - before) / (now - then) if now > then else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the last tick."""
        return self._stamps[-1][0] - self._first if self._stamps else 0.0

    @property
    def moved(self) -> int:
        """How many steps have moved to the shared history."""
        return sum(lane.moved for lane in self.lanes.values())

    def quiet(self, lane: Lane) -> bool:
        """Whether the worker has had no token for some ticks while others had: it has left, or it waits."""
        return self.ticks - lane.seen >= _QUIET_TICKS * max(1, len(self.lanes))

    def used(self) -> dict[str, float]:
        """The ledger as far as it is known: of the run, of the trace's end, or counted from the ticks."""
        if self.end:
            return dict(self.end["ledger"])
        if self.ledger is not None:
            return dict(self.ledger())
        return {"ticks": self.ticks, "decoded": self.decoded, "seconds": self.elapsed}

    def share(self) -> tuple[str, float, float, float]:
        """The limit of the budget that is nearest to its end: its name, spent, limit, spent / limit (at most 1)."""
        used = self.used()
        used["tokens"] = sum(used.get(name, 0) for name in ("prefill", "decoded", "latent"))
        limits = self.start.get("budget", {}) or {"ticks": 0}
        parts = [
            (name, used.get(name, 0.0), float(limit), min(1.0, used.get(name, 0.0) / limit) if limit else 0.0)
            for name, limit in limits.items()
        ]
        return max(parts, key=lambda part: part[3])
