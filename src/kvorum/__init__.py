"""kvorum: several LLM workers think at once over one KV cache."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvorum import programs
    from kvorum.api import Engine
    from kvorum.engine.budget import Budget, Ledger
    from kvorum.engine.decode import Token
    from kvorum.engine.row import Cost, Output, Row
    from kvorum.harness.decisions.answers import Decision, Decisions
    from kvorum.harness.decisions.questions import Choice, Option, Score, YesNo
    from kvorum.kv import LATENT, Block, Gap, Span, View
    from kvorum.programs import adecide
    from kvorum.runs.annotations import Help
    from kvorum.runs.program import Program, Task, program
    from kvorum.runs.run import Run
    from kvorum.runs.start import Result, arun, inside
    from kvorum.runs.steering import Command
    from kvorum.runs.worker import Worker
    from kvorum.sampling.grammar import Grammar
    from kvorum.sampling.sampling import Sampling

# Loaded when first used: `kvorum models` and `--help` should not wait for torch.
_HOMES = {
    "engine.budget": ("Budget", "Ledger"),
    "engine.decode": ("Token",),
    "api": ("Engine",),
    "runs.annotations": ("Help",),
    "engine.row": ("Cost", "Output", "Row"),
    "harness.decisions.answers": ("Decision", "Decisions"),
    "harness.decisions.questions": ("Choice", "Option", "Score", "YesNo"),
    "programs": ("adecide",),
    "runs.program": ("Program", "Task", "program"),
    "runs.run": ("Run",),
    "runs.start": ("Result", "arun", "inside"),
    "runs.steering": ("Command",),
    "sampling.grammar": ("Grammar",),
    "sampling.sampling": ("Sampling",),
    "runs.worker": ("Worker",),
    "kv": ("LATENT", "Block", "Gap", "Span", "View"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "LATENT",
    "Block",
    "Budget",
    "Choice",
    "Command",
    "Cost",
    "Decision",
    "Decisions",
    "Engine",
    "Gap",
    "Grammar",
    "Help",
    "Ledger",
    "Option",
    "Output",
    "Program",
    "Result",
    "Row",
    "Run",
    "Sampling",
    "Score",
    "Span",
    "Task",
    "Token",
    "View",
    "Worker",
    "YesNo",
    "adecide",
    "arun",
    "inside",
    "program",
    "programs",
]


def __getattr__(name: str) -> Any:
    if name == "programs":
        return import_module("kvorum.programs")
    if name in _HOME:
        return getattr(import_module(f"kvorum.{_HOME[name]}"), name)
    raise AttributeError(f"module 'kvorum' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
