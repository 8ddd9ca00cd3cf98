"""What a run does, as events of its trace: workers by the names of their scope, views whole, blocks numbered.

The scope is the one place that knows how workers and blocks of a run inside another are called, and what stands before
its views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast
from weakref import WeakKeyDictionary

from torch import Tensor

from kvorum.engine.owners import Owners
from kvorum.engine.row import Row
from kvorum.jsontypes import Json
from kvorum.kv import Block, Gap, Span, View
from kvorum.runs.loops import Loop
from kvorum.runs.state import RunState
from kvorum.store.events import AttentionRow, FaultEvent, InjectionData, TickEvent, TickRow, note_event


class Scope:
    """What stands before every view of a run (``before``), and before the names of its workers (``label``).

    At the top both are empty; inside another run the label ends in "/".
    """

    def __init__(self, label: str = "", before: Sequence[Span | Gap] = ()) -> None:
        self.label = label
        self.before = tuple(before)
        self._whole: WeakKeyDictionary[View, View] = WeakKeyDictionary()

    @property
    def nested(self) -> bool:
        """Whether it is inside another run."""
        return bool(self.label)

    def name(self, name: str) -> str:
        """A worker's or block's name as traces and blocks have it."""
        return self.label + name

    def view(self, view: View) -> View:
        """A view with what stands before it; the same object for the same view."""
        if not self.nested:
            return view
        if view not in self._whole:
            self._whole[view] = View(*self.before).behind(view)
        return self._whole[view]

    def inside(self, view: View, name: str) -> Scope:
        """The scope of a run called ``name`` behind ``view``, whose last block is seen as far as it is written now."""
        whole = self.view(view)
        return Scope(f"{self.label}{name}/", whole.fork(len(whole)).items)


class Recorder:
    """Writes the events of one run to the trace that it shares with those around it and inside it."""

    def __init__(self, state: RunState, scope: Scope) -> None:
        self._state, self._scope = state, scope
        self._trace, self._numbers = state.trace, state.numbers

    @property
    def tick_number(self) -> int:
        """The number of the tick that is being done, or comes next."""
        return self._state.ticks

    def view(self, worker: str, view: View) -> None:
        """A worker's view is another one now."""
        items = self._numbers.view(self._scope.view(view))
        self._trace.add({"event": "view", "worker": self._scope.name(worker), "items": items})

    def move(self, worker: str, items: Sequence[Block | Span], into: Block) -> None:
        """Tokens of ``items`` were appended to ``into``."""
        self._trace.add(
            {
                "event": "move",
                "worker": self._scope.name(worker),
                "tokens": sum(map(len, items)),
                "into": into.name,
                "block": self._numbers.number(into),
                "from": self._numbers.spans(items),
            }
        )

    def note(self, kind: str, data: Mapping[str, Json]) -> None:
        """Something that the program wants to tell; a ``worker`` in it is called as in all events."""
        worker = data.get("worker")
        named = {"worker": self._scope.name(worker)} if isinstance(worker, str) else {}
        self._trace.add(note_event(kind, {**data, **named}))

    def loop(self, worker: str, loop: Loop | None, *, ended: bool) -> None:
        """A worker has been looping since a tick, and has ``ended`` for it; or it loops no more (None)."""
        if loop is None:
            self.note("loop", {"worker": worker, "until": self._state.ticks})
        else:
            self.note("loop", {"worker": worker, "since": loop.since, "period": loop.period, "ended": ended})

    def fault(self, injection: InjectionData) -> None:
        """An injected fault takes effect; what is not set of it is left out."""
        more = {key: value for key, value in injection.items() if key not in ("fault", "worker") and value}
        event = {"event": "fault", "mode": injection["fault"], "worker": self._scope.name(injection["worker"])}
        self._trace.add(cast("FaultEvent", {**event, "tick": self._state.ticks, **more}))

    def forward(self, number: int, rows: Sequence[Row]) -> None:
        """A tick without picks was done."""
        tokens, fed = sum(row.count for row in rows), self._numbers.rows(rows)
        seconds = self._state.ledger.seconds
        self._trace.add({"event": "forward", "n": number, "seconds": seconds, "tokens": tokens, "rows": fed})

    def tick(self, rows: Sequence[TickRow], also: Sequence[Row]) -> None:
        """A tick was done; ``also``: its rows that picked nothing."""
        ledger = self._state.ledger
        event: TickEvent = {
            "event": "tick",
            "n": self._state.ticks,
            "seconds": ledger.seconds,
            "ledger": ledger.as_dict(),
            "rows": [{**row, "worker": self._scope.name(row["worker"])} for row in rows],
        }
        if also:
            event["also"] = self._numbers.rows(also)
        self._trace.add(event)

    def attention(self, owners: Owners, workers: Sequence[str], seen: Sequence[Tensor | None] | None) -> None:
        """Whose words the workers of the tick just done attended to."""
        rows: list[AttentionRow] = []
        for name, layers in zip(workers, seen or (), strict=False):
            if layers is not None:
                shares = [[round(share, 5) for share in row] for row in layers.tolist()]
                rows.append({"worker": self._scope.name(name), "shares": shares})
        self._trace.add({"event": "attention", "n": self._state.ticks, "owners": list(owners.names), "rows": rows})
