"""What a run does, as events of its trace: workers by the names of their scope, views whole, blocks numbered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor

from kvorum.engine.owners import Owners
from kvorum.engine.row import Row
from kvorum.jsontypes import Json
from kvorum.kv import Block, Span, View
from kvorum.runs.scope import Scope
from kvorum.runs.state import RunState
from kvorum.runs.steering import Command
from kvorum.store.events import AttentionRow, FaultEvent, InjectionData, TickEvent, TickRow, note_event


class Recorder:
    """Writes the events of one run to the trace that it shares with those around it and inside it."""

    def __init__(self, state: RunState, scope: Scope) -> None:
        self._state, self._scope = state, scope

    def view(self, worker: str, view: View) -> None:
        """A worker's view is another one now."""
        items = self._state.numbers.view(self._scope.view(view))
        self._state.trace.add({"event": "view", "worker": self._scope.name(worker), "items": items})

    def move(self, worker: str, items: Sequence[Block | Span], into: Block) -> None:
        """Tokens of ``items`` were appended to ``into``."""
        numbers = self._state.numbers
        self._state.trace.add(
            {
                "event": "move",
                "worker": self._scope.name(worker),
                "tokens": sum(map(len, items)),
                "into": into.name,
                "block": numbers.number(into),
                "from": numbers.spans(items),
            }
        )

    def note(self, kind: str, data: Mapping[str, Json]) -> None:
        """Something that the program wants to tell; a ``worker`` in it is called as in all events."""
        worker = data.get("worker")
        named = {"worker": self._scope.name(worker)} if isinstance(worker, str) else {}
        self._state.trace.add(note_event(kind, {**data, **named}))

    def command(self, command: Command) -> None:
        """A command was taken up before the next tick."""
        self._state.trace.add(
            {
                "event": "command",
                "tick": self._state.ticks,
                "kind": command.kind,
                "worker": command.worker,
                "text": command.text,
            }
        )

    def outside(self, number: int, name: str, value: Json) -> None:
        """The outside was asked for ``name`` and said ``value``."""
        self._state.trace.add({"event": "outside", "n": number, "name": name, "value": value})

    def fault(self, injection: InjectionData) -> None:
        """An injected fault takes effect; what is not set of it is left out."""
        more = {key: value for key, value in injection.items() if key not in ("fault", "worker") and value}
        event = {"event": "fault", "mode": injection["fault"], "worker": self._scope.name(injection["worker"])}
        self._state.trace.add(cast("FaultEvent", {**event, "tick": self._state.ticks, **more}))

    def forward(self, number: int, rows: Sequence[Row]) -> None:
        """A tick without picks was done."""
        self._state.trace.add(
            {
                "event": "forward",
                "n": number,
                "seconds": self._state.ledger.seconds,
                "tokens": sum(row.count for row in rows),
                "rows": self._state.numbers.rows(rows),
            }
        )

    def tick(self, rows: Sequence[TickRow], also: Sequence[Row]) -> None:
        """A tick was done; ``also``: its rows that picked nothing."""
        state = self._state
        event: TickEvent = {
            "event": "tick",
            "n": state.ticks,
            "seconds": state.ledger.seconds,
            "ledger": state.ledger.as_dict(),
            "rows": [{**row, "worker": self._scope.name(row["worker"])} for row in rows],
        }
        if also:
            event["also"] = state.numbers.rows(also)
        state.trace.add(event)

    def attention(self, owners: Owners, workers: Sequence[str], seen: Sequence[Tensor | None] | None) -> None:
        """Whose words the workers of the tick just done attended to."""
        rows: list[AttentionRow] = [
            {
                "worker": self._scope.name(name),
                "shares": [[round(share, 5) for share in row] for row in layers.tolist()],
            }
            for name, layers in zip(workers, seen or (), strict=False)
            if layers is not None
        ]
        self._state.trace.add(
            {"event": "attention", "n": self._state.ticks, "owners": list(owners.names), "rows": rows}
        )
