"""What a program's parameters may be, for forms: their kinds, and the words to choose among.

Programs check their parameters themselves; this only tells beforehand what they take.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from kvorum.harness.answers import KINDS
from kvorum.harness.voices import CHANNELS as VOICES
from kvorum.programs.hogwild.controls import CHANNELS
from kvorum.programs.hogwild.hogwild import LAYOUTS
from kvorum.programs.network.network import PLAYERS
from kvorum.programs.relay.alignment import ALIGNMENTS
from kvorum.programs.relay.relay import CHOICES as RELAY
from kvorum.programs.thread.prune import MODES
from kvorum.programs.tree.methods import PRESETS
from kvorum.programs.tree.nodes import ESTIMATORS
from kvorum.runs.program import Program
from kvorum.tasks.agentsnet import PROBLEMS
from kvorum.tasks.consensus import LIES, RULES

CHOICES: dict[str, dict[str, Sequence[str]]] = {
    "hogwild": {
        "layout": LAYOUTS, "ends": ("sentence", "line"), "headers": ("context", "alone"), "channel": CHANNELS,
        "forget": ("splice", "gap"), "final": ("cache", "reencode"),
    },
    "network": {"problem": ("", *PROBLEMS), "channel": VOICES, "player": PLAYERS},
    "roleplay": {"channel": VOICES},
    "consensus": {
        "quorum": ("all", "honest"), "channel": VOICES, "player": (*RULES, "model"), "liar": (*LIES, "model"),
    },
    "relay": {**RELAY, "align": ALIGNMENTS},
    "tree": {"method": tuple(PRESETS), "select": ("uniform", "entropy"), "advantage": ESTIMATORS},
    "thread": {"trigger": ("list", "conclusion"), "mode": (*MODES, "none"), "siblings": ("serial", "forks", "live")},
}  # fmt: skip
"""By program and parameter; ``answer`` is of one of its kinds wherever there is one."""

_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string"}


def choices(program: Program, name: str) -> list[str] | None:
    """The words that a parameter may be; None: it is not chosen among words."""
    known = CHOICES.get(program.name, {}).get(name, tuple(KINDS) if name == "answer" else None)
    return None if known is None else list(known)


def kind(program: Program, name: str) -> str:
    """boolean, integer, number, string, array or any: of its default or, where that is None, as declared."""
    default = program.params[name]
    if default is not None:
        return _KINDS.get(type(default), "array" if isinstance(default, list | tuple) else "any")
    hint: Any = get_type_hints(program.function).get(name)
    kinds = [part for part in get_args(hint) if part is not NoneType] if get_origin(hint) is UnionType else [hint]
    return _KINDS.get(kinds[0], "any") if len(kinds) == 1 else "any"
