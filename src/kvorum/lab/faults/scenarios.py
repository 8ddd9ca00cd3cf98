"""The scenarios (``scenarios.yaml``): a program on a problem, a script, and the faults that make sense there."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field

from kvorum.jsontypes import JsonObject
from kvorum.lab import read_yaml
from kvorum.lab.faults.catalogue import FAULTS, Label
from kvorum.lab.faults.scripts import CueSheet, ScriptWriter, by_turns, written_on
from kvorum.lab.faults.scripts_turns import agreement, coloring, dialogue
from kvorum.lab.faults.scripts_writing import alone, chain, facts, handed_on
from kvorum.programs import find
from kvorum.runs.injection import Injection
from kvorum.runs.worker import choose_names
from kvorum.tasks import families
from kvorum.tasks.item import Item


@dataclass(frozen=True, slots=True)
class LabelledRun:
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
    script: Callable[[ScriptWriter], CueSheet]
    faults: Sequence[str]
    params: JsonObject = field(default_factory=dict)
    small: JsonObject = field(default_factory=dict)
    tokens: int = 0
    only_scripted: Sequence[str] = ()

    def item(self, seed: int) -> Item:
        """The problem of that seed for its workers."""
        return families.make(self.family, seed, self.workers)

    def make(
        self, fault: str, seed: int, scripted: bool, encode: Callable[[str], Sized], reworded: bool = False
    ) -> LabelledRun:
        """The run with this fault ("": none), or with the fault in other words (``reworded``)."""
        draw = random.Random(f"{self.name} {fault} {seed}")
        item = self.item(seed)
        sheet = self.script(ScriptWriter(item, choose_names(self.workers, 64), fault, draw, reworded))
        labels = [(FAULTS[fault].mode, name) for name in sheet.blamed] if fault else []
        if find(self.program).turns:
            return LabelledRun(item, by_turns(sheet, scripted), labels)
        return LabelledRun(item, written_on(sheet, encode, scripted, draw.randint(28, 40)), labels)


_SCRIPTS = {script.__name__: script for script in (facts, chain, alone, handed_on, dialogue, coloring, agreement)}

SCENARIOS: Mapping[str, Scenario] = {
    name: Scenario(name=name, **{**fields, "script": _SCRIPTS[fields["script"]]})
    for name, fields in read_yaml(__file__, "scenarios.yaml").items()
}
