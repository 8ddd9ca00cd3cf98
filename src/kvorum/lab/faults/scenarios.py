"""The scenarios (``scenarios.yaml``): a program on a problem, a script, and the faults that make sense there."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field

from kvorum.jsontypes import JsonObject
from kvorum.lab.extra import need
from kvorum.lab.faults import scripts_turns, scripts_writing
from kvorum.lab.faults.catalogue import data
from kvorum.lab.faults.record import Label
from kvorum.lab.faults.scripts import CueSheet, Writer, by_turns, written_on
from kvorum.programs import find
from kvorum.runs.injection import Injection
from kvorum.runs.worker import choose_names
from kvorum.tasks import families
from kvorum.tasks.item import Item


@dataclass(frozen=True, slots=True)
class Plan:
    """A run to be made: its problem, what is injected, and the failures that are true by construction."""

    item: Item
    injections: Sequence[Injection]
    labels: Sequence[Label]


@dataclass(frozen=True, slots=True)
class Scenario:
    """``params``: the program's, for scripts; ``small``: those that differ where a model writes, whose workers may then
    write ``tokens`` in all (0: it is not left to a model). ``only_scripted``: faults that a model cannot be led into.
    """

    name: str
    program: str
    family: str
    workers: int
    script: Callable[[Writer], CueSheet]
    faults: Sequence[str]
    params: JsonObject = field(default_factory=dict)
    small: JsonObject = field(default_factory=dict)
    tokens: int = 0
    only_scripted: Sequence[str] = ()

    def item(self, seed: int) -> Item:
        """Its problem of that seed."""
        return families.make(self.family, seed, self.workers)

    def plan(
        self, fault: str, seed: int, scripted: bool, encode: Callable[[str], Sized], reworded: bool = False
    ) -> Plan:
        """The run with this fault ("": none), or with the fault in other words (``reworded``)."""
        draw = random.Random(f"{self.name} {fault} {seed}")
        item = self.item(seed)
        script = self.script(Writer(item, choose_names(self.workers, 64), fault, draw, reworded))
        if find(self.program).turns:
            return Plan(item, by_turns(script, scripted), script.labels)
        return Plan(item, written_on(script, encode, scripted, draw.randint(28, 40)), script.labels)


_SCRIPTS = {
    script.__name__: script
    for script in (
        scripts_writing.facts,
        scripts_writing.chain,
        scripts_writing.alone,
        scripts_writing.handed_on,
        scripts_turns.dialogue,
        scripts_turns.coloring,
        scripts_turns.agreement,
    )
}

SCENARIOS: Mapping[str, Scenario] = {
    name: Scenario(name=name, **{**fields, "script": _SCRIPTS[fields["script"]]})
    for name, fields in need("yaml").safe_load(data("scenarios.yaml")).items()
}
