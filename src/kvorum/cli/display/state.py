"""What a run looks like so far, gathered from its events: every worker with its steps of thought, line by line.

Knows nothing of terminals; `panes`, `lines` and `summary` show it. A worker's text is in `worker_lines`.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from kvorum.cli.display.worker_lines import Looping, WorkerState
from kvorum.engine.budget import Ledger
from kvorum.jsontypes import Json
from kvorum.store.events import EndEvent, Event, ForwardEvent, NoteEvent, StartEvent, TickEvent, note_data
from kvorum.wording import brief, harmless

_RATE_SECONDS = 10.0
_QUIET_TICKS = 4


def trace_clock(event: Event) -> float:
    """The time of a tick in seconds of computing since the run began, as its trace has it."""
    return event["seconds"] if event["event"] == "tick" or event["event"] == "forward" else 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """How far a run is: the limit of its budget that is nearest to its end, what was spent of it, and the share.

    ``limit`` is 0 where there is none; ``share`` is from 0 to 1.
    """

    name: str
    spent: float
    limit: float

    @property
    def share(self) -> float:
        """Spent of the limit, at most 1."""
        return min(1.0, self.spent / self.limit) if self.limit else 0.0


class ShownRun:
    """The state of a run, fed with its events; safe to read from another thread while ``lock`` is held.

    Args:
        clock: the time of a tick in seconds; default the wall clock, a shown trace has its own.
    """

    def __init__(self, clock: Callable[[Event], float] | None = None) -> None:
        self.lock = threading.Lock()
        self.workers: dict[str, WorkerState] = {}
        self.start: StartEvent | None = None
        self.end: EndEvent | None = None
        self.status = "starting"
        self.ledger: Callable[[], Ledger] | None = None
        """The run's ledger as it now is, where there is a run."""
        self.ticks = 0
        self.decoded = 0
        self.found: str | None = None
        """Who gave the answer, where the program told."""
        self.votes: dict[str, str] = {}
        self._clock = clock or (lambda event: time.monotonic())
        self._stamps: deque[tuple[float, int]] = deque()
        self._first = 0.0

    # -- what came in ------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        """Take up one event of the trace."""
        with self.lock:
            if event["event"] == "start":
                self.start = event
                for name in event["workers"]:
                    self._worker(name)
                self._first = self._clock(event)
                self._stamps.append((self._first, 0))
            elif event["event"] == "tick":
                self._tick(event)
            elif event["event"] == "forward":
                self._stamp(event)
            elif event["event"] == "move":
                self._move(event["worker"])
            elif event["event"] == "note":
                self._note(event)
            elif event["event"] == "end":
                self.end = event

    def _worker(self, name: str) -> WorkerState:
        if name not in self.workers:
            shown = harmless(name).replace("\n", " ")
            self.workers[name] = WorkerState(shown, len(self.workers), seen=self.ticks)
        return self.workers[name]

    def _tick(self, event: TickEvent) -> None:
        self.ticks = event["n"] + 1
        prompt = self.start["task"]["prompt"].strip() if self.start else ""
        for row in event["rows"]:
            worker = self._worker(row["worker"])
            given = row.get("given", "")
            if given and not worker.asked and not (prompt and prompt in given):  # the prompt is known to who asked
                number = re.match(rf"\s*\*\*{re.escape(worker.name)} \[(\d+)\]:\*\* ?", given)
                if number:
                    given = f"[{number[1]}] {given[number.end() :]}"
                worker.write(given, True)
            if not worker.quoting:
                worker.write(row["text"], False)
            worker.picked.append(row["text"])
            worker.seen = self.ticks
        self.decoded += len(event["rows"])
        self._stamp(event)

    def _stamp(self, event: TickEvent | ForwardEvent) -> None:
        self._stamps.append((self._clock(event), self.decoded))
        while len(self._stamps) > 2 and self._stamps[-1][0] - self._stamps[0][0] > _RATE_SECONDS:
            self._stamps.popleft()

    def _move(self, name: str) -> None:
        worker = self._worker(name)
        if worker.step:
            worker.moved += 1
            for line in worker.step:
                line.done = True
            worker.step = []

    def _note(self, event: NoteEvent) -> None:
        data = note_data(event)
        if event["kind"] == "question":
            asked = self._worker(str(data.get("worker")))
            asked.write(f"{brief(str(data.get('text')))}\n", True)
            asked.asked, asked.quoting = True, False
        elif event["kind"] == "answer":
            self._worker(str(data.get("worker"))).quoting = True
        elif event["kind"] == "quote":
            self._worker(str(data.get("worker"))).write(f"\n> {brief(str(data.get('text')))}\n", True)
        elif event["kind"] == "told":
            self._worker(str(data.get("worker"))).begin_turn()
        elif event["kind"] == "closed":
            self._worker(str(data.get("worker"))).write(str(data.get("text")), False)
        elif event["kind"] == "post" and isinstance(fields := data.get("fields"), Mapping):
            self._worker(str(data.get("worker"))).read_message(fields)
        elif event["kind"] == "loop":
            self._loop(str(data.get("worker")), data.get("since"), data.get("period"), data.get("ended") is True)
        elif event["kind"] == "tool" and "result" in data:
            said = f"{data.get('tool')}({data.get('arguments')}) {data.get('status')}: {data.get('result')}"
            self._worker(str(data.get("worker"))).write(f"\n> {' '.join(said.split())}\n", True)
        elif event["kind"] == "prune" and "tool" in data:
            left = f" ({data['left']})" if "left" in data else ""
            gone = f"\n> the result of {data['tool']} was removed to make room{left}\n"
            self._worker(str(data.get("worker"))).write(gone, True)
        elif event["kind"] == "found":
            worker = data.get("worker")
            self.found = None if worker is None else str(worker)
        elif event["kind"] == "votes" and isinstance(votes := data.get("answers"), Mapping):
            self.votes = {name: str(answer) for name, answer in votes.items()}

    def _loop(self, name: str, since: Json, period: Json, ended: bool) -> None:
        worker = self._worker(name)
        worker.looping = None
        if isinstance(since, int) and isinstance(period, int):
            worker.looping = Looping(since, period, ended)

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
        return sum(worker.moved for worker in self.workers.values())

    @property
    def answer(self) -> str | None:
        """The answer, where the run has ended with one."""
        return self.end["answer"] if self.end else None

    def quiet(self, worker: WorkerState) -> bool:
        """Whether the worker has had no token for some ticks while others had: it has left, or it waits."""
        return self.ticks - worker.seen >= _QUIET_TICKS * max(1, len(self.workers))

    def used(self) -> dict[str, float]:
        """The ledger as far as it is known: of the run, of the trace's end, or counted from the ticks."""
        if self.end:
            return {name: value for name, value in self.end["ledger"].items() if isinstance(value, int | float)}
        if self.ledger is not None:
            return asdict(self.ledger())
        return {"ticks": self.ticks, "decoded": self.decoded, "seconds": self.elapsed}

    def limits(self) -> dict[str, float]:
        """The limits of the run's budget."""
        budget = self.start["budget"] if self.start else {}
        return {harmless(name): limit for name, limit in budget.items() if isinstance(limit, int | float)}

    def share(self) -> Share:
        """The limit of the budget that is nearest to its end."""
        used = self.used()
        used["tokens"] = sum(used.get(name, 0) for name in ("prefill", "decoded", "latent"))
        limits = self.limits() or {"ticks": 0.0}
        return max((Share(name, used.get(name, 0.0), limit) for name, limit in limits.items()), key=lambda s: s.share)
