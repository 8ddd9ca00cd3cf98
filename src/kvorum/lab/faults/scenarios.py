"""Worlds in which faults are injected: a program on a problem, a script, and the faults that make sense there.

Where a fault is missing it cannot be: nobody can tell two readers of one cache different things, a solo worker has no
messages to lose, and thread and tree are one worker's search, whose words a grammar or a trainer rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvorum.lab.faults import scripts_turns, scripts_writing
from kvorum.lab.faults.scripts import CueSheet, Writer, by_turns, written_on
from kvorum.runs.injection import Injection
from kvorum.runs.worker import choose_names
from kvorum.tasks import families
from kvorum.tasks.item import Item

_SPOKEN = ("loop", "flake", "unverified", "false_check")


@dataclass(frozen=True, slots=True)
class Scenario:
    """``params``: the program's, for scripts; ``small``: those that differ where a model writes, whose workers may then
    write ``tokens`` in all (0: it is not left to a model). ``only_scripted``: faults that a model cannot be led into.
    """

    name: str
    program: str
    family: str
    options: Mapping[str, Any]
    workers: int
    script: Callable[[Writer], CueSheet]
    faults: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0
    only_scripted: tuple[str, ...] = ()

    def item(self, seed: int) -> Item:
        """Its problem of that seed."""
        return families.make(self.family, seed, self.workers, **self.options)

    def plan(
        self, fault: str, seed: int, scripted: bool, encode: Callable[[str], Sequence[object]], reworded: bool = False
    ) -> tuple[Item, list[Injection], list[tuple[str, str]]]:
        """The item, the injections, and the labels (mode, worker). ``fault`` "": none; ``reworded``: in other words."""
        draw = random.Random(f"{self.name} {fault} {seed}")
        item = self.item(seed)
        script = self.script(Writer(item, choose_names(self.workers, 64), fault, draw, reworded))
        if self.program in ("roleplay", "network", "consensus"):
            return item, by_turns(script, scripted), script.labels
        return item, written_on(script, encode, scripted, draw.randint(28, 40)), script.labels


_HOGWILD = {"ends": "line", "openings": False, "check_every": 0, "final_tokens": 1}

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "hogwild-facts", "hogwild", "facts", {}, 3, scripts_writing.facts,
            (*_SPOKEN, "drop", "delay", "lie", "crash", "echo", "flip", "thanks", "early_stop", "unaware", "withhold",
             "forget"),
            _HOGWILD, {}, 384, ("unaware",),
        ),
        Scenario(
            "hogwild-chain", "hogwild", "chain", {}, 3, scripts_writing.chain,
            (*_SPOKEN, "crash", "echo", "early_stop", "credulous"),
            _HOGWILD, {}, 384,
        ),
        Scenario(
            "vote", "vote", "chain", {}, 3, scripts_writing.alone, (*_SPOKEN, "echo", "early_stop", "crash"),
            {"final_tokens": 1}, {}, 384,
        ),
        Scenario(
            "solo", "solo", "chain", {}, 1, scripts_writing.alone, (*_SPOKEN, "echo", "early_stop"),
            {"final_tokens": 1}, {}, 128,
        ),
        Scenario(
            "relay", "relay", "facts", {}, 3, scripts_writing.handed_on,
            (*_SPOKEN, "drop", "lie", "crash", "echo", "withhold"),
            {"think": "text", "text_tokens": 1200, "final_tokens": 1}, {"text_tokens": 96}, 320,
        ),
        Scenario(
            "roleplay", "roleplay", "chain", {}, 2, scripts_turns.roleplay,
            (*_SPOKEN, "drop", "delay", "crash", "echo", "flip", "thanks", "early_stop"),
            {"messages": 12, "message_tokens": 900, "silent": 6, "flakes": 5, "stale": 8},
            {"messages": 8, "message_tokens": 64}, 640,
        ),
        Scenario(
            "network", "network", "graph", {}, 4, scripts_turns.coloring,
            ("drop", "delay", "lie", "equivocate", "crash", "echo", "withhold", "ignore", "mismatch", "forget", "late"),
            {"rounds": scripts_turns.ROUNDS, "think": False, "message_tokens": 1200, "retries": 0},
        ),
        Scenario(
            "consensus", "consensus", "agreement", {}, 4, scripts_turns.agreement,
            ("drop", "delay", "lie", "equivocate", "crash", "early_stop", "unaware", "mismatch"),
            {"rounds": 4, "proposal_tokens": 600, "retries": 0},
        ),
    )
}  # fmt: skip
