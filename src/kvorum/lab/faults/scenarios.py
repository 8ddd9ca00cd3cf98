"""Scenarios in which faults are injected: a program on a problem, a script, and the faults that make sense there.

This is the one place of the lab that names programs, since what a script's workers say is written for how one program
lets them talk. Where a fault is missing it cannot be: nobody can tell two readers of one cache different things, a
worker alone has no messages to lose, and a single worker's search follows a grammar or a trainer, not a script.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field

from kvorum.jsontypes import Json, JsonObject
from kvorum.lab.faults import scripts_turns, scripts_writing
from kvorum.lab.faults.record import Label
from kvorum.lab.faults.scripts import CueSheet, Writer, by_turns, written_on
from kvorum.programs import find
from kvorum.runs.injection import Injection
from kvorum.runs.worker import choose_names
from kvorum.tasks import families
from kvorum.tasks.item import Item

_SPOKEN = ("loop", "flake", "unverified", "false_check")


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
    faults: tuple[str, ...]
    params: JsonObject = field(default_factory=dict)
    small: JsonObject = field(default_factory=dict)
    tokens: int = 0
    only_scripted: tuple[str, ...] = ()

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


_STEPS: Mapping[str, Json] = {"ends": "line", "openings": False, "check_every": 0, "final_tokens": 1}

_ALL = (
    Scenario(
        name="hogwild-facts",
        program="hogwild",
        family="facts",
        workers=3,
        script=scripts_writing.facts,
        faults=(
            *_SPOKEN,
            *("drop", "delay", "lie", "crash", "echo", "flip", "thanks", "early_stop", "unaware", "withhold", "forget"),
        ),
        params=_STEPS,
        tokens=384,
        only_scripted=("unaware",),
    ),
    Scenario(
        name="hogwild-chain",
        program="hogwild",
        family="chain",
        workers=3,
        script=scripts_writing.chain,
        faults=(*_SPOKEN, "crash", "echo", "early_stop", "credulous"),
        params=_STEPS,
        tokens=384,
    ),
    Scenario(
        name="vote",
        program="vote",
        family="chain",
        workers=3,
        script=scripts_writing.alone,
        faults=(*_SPOKEN, "echo", "early_stop", "crash"),
        params={"final_tokens": 1},
        tokens=384,
    ),
    Scenario(
        name="solo",
        program="solo",
        family="chain",
        workers=1,
        script=scripts_writing.alone,
        faults=(*_SPOKEN, "echo", "early_stop"),
        params={"final_tokens": 1},
        tokens=128,
    ),
    Scenario(
        name="relay",
        program="relay",
        family="facts",
        workers=3,
        script=scripts_writing.handed_on,
        faults=(*_SPOKEN, "drop", "lie", "crash", "echo", "withhold"),
        params={"think": "text", "text_tokens": 1200, "final_tokens": 1},
        small={"text_tokens": 96},
        tokens=320,
    ),
    Scenario(
        name="roleplay",
        program="roleplay",
        family="chain",
        workers=2,
        script=scripts_turns.roleplay,
        faults=(*_SPOKEN, "drop", "delay", "crash", "echo", "flip", "thanks", "early_stop"),
        params={"messages": 12, "message_tokens": 900, "silent": 6, "flakes": 5, "stale": 8},
        small={"messages": 8, "message_tokens": 64},
        tokens=640,
    ),
    Scenario(
        name="network",
        program="network",
        family="graph",
        workers=4,
        script=scripts_turns.coloring,
        faults=(
            *("drop", "delay", "lie", "equivocate", "crash", "echo", "withhold", "ignore", "mismatch", "forget"),
            "late",
        ),
        params={"rounds": scripts_turns.ROUNDS, "think": False, "message_tokens": 1200, "retries": 0},
    ),
    Scenario(
        name="consensus",
        program="consensus",
        family="agreement",
        workers=4,
        script=scripts_turns.agreement,
        faults=("drop", "delay", "lie", "equivocate", "crash", "early_stop", "unaware", "mismatch"),
        params={"rounds": 4, "proposal_tokens": 600, "retries": 0},
    ),
)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
