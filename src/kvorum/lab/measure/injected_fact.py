"""A sentence put into one worker's text while the team works, and how long the others take to use what it says.

A task of a study says ``inject: true``, or which parts of it are not the default:

    inject: {tick: 8, worker: Alice, text: " Note for all: the code is 47.", value: "47"}

``tick``: after how many ticks of the run. ``worker``: whose text, the team's first one. ``text``: what it is told, by
the engine's ``say``; default a fact that the item needs: one that this worker holds, else one that nobody was told.
``value``: the words of it that count as a reaction where somebody else writes them. One worker alone is told all the
same and has nobody to react.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from kvorum.errors import BadRequest, UnknownName
from kvorum.jsontypes import Json
from kvorum.lab.measure.coordination import countable, spoken
from kvorum.lab.measure.worker_text import worker_texts
from kvorum.runs.run import Run
from kvorum.runs.steering import Command
from kvorum.store.events import Event
from kvorum.tasks.item import Item
from kvorum.wording import check_known

_KEYS = ("tick", "worker", "text", "value")


@dataclass(frozen=True, slots=True)
class InjectedFact:
    """Who is told what, after how many ticks, and which of its words are looked for."""

    worker: str
    tick: int
    text: str
    value: str

    @classmethod
    def of(cls, asked: Json, item: Item, names: Sequence[str]) -> InjectedFact:
        """What ``asked`` means for an item and a team. Raises BadRequest, UnknownName."""
        said: Json = {} if asked is True else asked
        if not isinstance(said, Mapping):
            raise BadRequest(f"inject is true or a mapping with {', '.join(_KEYS)}, not {asked!r}.")
        for key in said:
            check_known("key", key, _KEYS, owner="inject")
        tick, worker = said.get("tick", 8), str(said.get("worker", names[0]))
        if not isinstance(tick, int) or tick < 1:
            raise BadRequest(f"inject.tick is a whole number of ticks, at least 1, not {tick!r}.")
        if worker not in names:
            raise UnknownName(f"inject.worker is {worker!r}; the workers are: {', '.join(names)}.")
        if ("text" in said) != ("value" in said) or str(said.get("value", "")) not in str(said.get("text", "")):
            raise BadRequest("inject.text needs inject.value, and the other way round: words of the text to look for.")
        if "text" in said:
            return cls(worker, tick, str(said["text"]), str(said["value"]))
        return cls(worker, tick, *_fact(item, worker))

    def listen(self, event: Event, run: Run) -> None:
        """Say it when its tick is done; to be called with every event of the run."""
        if event["event"] == "tick" and event["n"] + 1 == self.tick:
            run.commands.append(Command("say", self.worker, self.text))

    def measure(self, events: Sequence[Event]) -> dict[str, Json]:
        """Columns of a run's record.

        ``told_tick``: from when it stood in the worker's text, None if it never did. ``reacted``: of the others who had
        not written the value before, the share who wrote it then; ``reaction_ticks``: their median delay;
        ``reactions``: each one's, None who never did.
        """
        tick = spoken(events, self.value)
        found: dict[str, Json] = {"injected": self.text.strip(), "told_tick": tick, "reacted": None}
        found |= {"reaction_ticks": None, "reactions": {}}
        if tick is None:
            return found
        first = {lane.name: lane.first(self.value) for lane in worker_texts(events) if lane.name != self.worker}
        lags = {name: None if at is None else at - tick for name, at in first.items() if at is None or at >= tick}
        after = [lag for lag in lags.values() if lag is not None]
        found |= {"reactions": lags, "reacted": len(after) / len(lags) if lags else None}
        return found | {"reaction_ticks": median(after) if after else None}


def _fact(item: Item, worker: str) -> tuple[str, str]:
    """A sentence that the item needs, and its value."""
    known = countable(item)
    free = [part for part in known if part.holder == worker] or [part for part in known if not part.holder] or known
    if not free:
        raise BadRequest(f"The task {item.family} has no fact to inject; say inject.text and inject.value.")
    part = free[0]
    private = item.private.get(part.holder, "")
    fact = f"{part.name} is {part.answer}." if part.name != part.answer else f"one of them is {part.answer}."
    return f" Note for all: {private if part.answer in private else fact}", part.answer
