"""What a run and the runs inside it share: one budget, ledger, trace, recording, gate, and one count of ticks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from kvorum.engine.budget import Budget, Ledger
from kvorum.engine.engine import EngineCore
from kvorum.engine.owners import Owners
from kvorum.runs.prefix_cache import PrefixCache
from kvorum.runs.replay import Recording
from kvorum.runs.steering import Command, Gate
from kvorum.runs.trace import BlockNumbers, Trace


class Spent(Exception):
    """The budget is used up; raised by ``Run.tick`` and ``Run.forward`` into a program that goes on all the same."""


@dataclass(slots=True, eq=False)
class RunState:
    """Shared by a run and all runs inside it, at any depth, so that each follows what becomes of the others.

    ``budget`` may be replaced while the run goes on. ``prompts``: those that other runs have encoded. ``reseed``:
    (tick, seed) pairs, in order: from that tick on this seed. ``ticks``, ``forwards`` and ``asked`` count the trace's
    ticks, forwards and questions to the outside so far; ``nested`` the runs that were begun inside.
    """

    engine: EngineCore
    budget: Budget
    trace: Trace = field(default_factory=Trace)
    recording: Recording = field(default_factory=Recording)
    prompts: PrefixCache | None = None
    reseed: Sequence[tuple[int, int]] = ()
    ledger: Ledger = field(default_factory=Ledger)
    numbers: BlockNumbers = field(default_factory=BlockNumbers)
    owners: Owners = field(default_factory=Owners)
    gate: Gate = field(default_factory=Gate)
    commands: deque[Command] = field(default_factory=deque)
    differences: list[str] = field(default_factory=list)
    answer_now: bool = False
    ticks: int = 0
    forwards: int = 0
    asked: int = 0
    nested: int = 0

    @property
    def replaying(self) -> bool:
        """Whether the next tick is one that the recording has."""
        return self.ticks < len(self.recording)

    @property
    def spent(self) -> str | None:
        """The budget's limit that is reached, or None; "asked" where somebody wants the answer now."""
        return "asked" if self.answer_now else self.budget.spent(self.ledger)

    def seed(self, default: int) -> int:
        """The seed of the next tick."""
        return next((seed for tick, seed in reversed(self.reseed) if tick <= self.ticks), default)

    def take_commands(self) -> list[Command]:
        """The commands since the last tick, which the trace keeps from now on: those of the recording, and once it is
        repeated those that came in."""
        found = self.recording.take_commands(self.ticks)
        if not self.replaying:
            found += self.commands
            self.commands.clear()
        for command in found:
            kind, worker, text = command.kind, command.worker, command.text
            self.trace.add({"event": "command", "tick": self.ticks, "kind": kind, "worker": worker, "text": text})
        return found
