"""What a run and the runs inside it share: one budget, ledger, trace, recording, gate, and one count of ticks."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from kvorum.engine.budget import Budget, Ledger
from kvorum.engine.engine import EngineCore
from kvorum.engine.owners import Owners
from kvorum.engine.text import Messages, chat, prints_the_time, turn
from kvorum.errors import BadTrace
from kvorum.jsontypes import Json, JsonObject
from kvorum.runs.own_prompts import OwnPrompts
from kvorum.runs.replay import Recording
from kvorum.runs.spending import Purse
from kvorum.runs.steering import Command, Gate
from kvorum.runs.trace import BlockNumbers, Trace
from kvorum.store.events import PromptEvent
from kvorum.store.kept_blocks import KeptBlocks


@dataclass(slots=True, eq=False)
class RunState:
    """Shared by a run and all runs inside it, at any depth, so that each follows what becomes of the others.

    ``purse``: its budget and ledger, which it spends from. ``prompts``: those that other runs have encoded. ``kept``:
    where encoded texts are kept on disk. ``reseed``: (tick, seed) pairs, in order: from that tick on this seed.
    ``switches``: what the chat template is told of thinking; ``rendered``: what it has made in this run, by the mark of
    what it was given. ``ticks``, ``forwards`` and ``asked`` count the trace's ticks, forwards and questions to the
    outside so far; ``nested`` the runs that were begun inside.
    """

    engine: EngineCore
    purse: Purse
    trace: Trace = field(default_factory=Trace)
    recording: Recording = field(default_factory=Recording)
    prompts: OwnPrompts | None = None
    kept: KeptBlocks | None = None
    reseed: Sequence[tuple[int, int]] = ()
    switches: Mapping[str, bool] = field(default_factory=dict)
    numbers: BlockNumbers = field(default_factory=BlockNumbers)
    owners: Owners = field(default_factory=Owners)
    gate: Gate = field(default_factory=Gate)
    commands: deque[Command] = field(default_factory=deque)
    differences: list[str] = field(default_factory=list)
    rendered: dict[str, PromptEvent] = field(default_factory=dict)
    ticks: int = 0
    forwards: int = 0
    asked: int = 0
    nested: int = 0

    @property
    def replaying(self) -> bool:
        """Whether the next tick is one that the recording has."""
        return self.ticks < len(self.recording)

    @property
    def ledger(self) -> Ledger:
        """What was spent."""
        return self.purse.ledger

    @property
    def budget(self) -> Budget:
        """What may be spent; may be replaced while the run goes on."""
        return self.purse.budget

    @budget.setter
    def budget(self, budget: Budget) -> None:
        self.purse.budget = budget

    def seed(self, default: int) -> int:
        """The seed of the next tick."""
        return next((seed for tick, seed in reversed(self.reseed) if tick <= self.ticks), default)

    def prompt(self, given: Messages | str | None, **variables: Json) -> PromptEvent:
        """What the chat template makes of a conversation, or around a user's words behind the rules ``given``.

        Made once in a run and kept in its trace; a replay has it from there. ``variables``: what the template is given
        beside a conversation, such as ``tools``.

        Raises:
            BadRequest: the template refuses the messages, or leaves words of theirs out.
            BadTrace: the recording has ticks that are still to be repeated, but not this prompt of theirs.
        """
        return self._kept([given, variables] if variables else given, lambda mark: self._render(given, mark, variables))

    def pieces(self, of: Json, make: Callable[[datetime | None, Mapping[str, bool]], Sequence[str]]) -> list[str]:
        """Pieces of text that ``make(moment, switches)`` cuts out of the chat template, kept as ``prompt`` keeps.

        ``of`` says what they are pieces of.
        """
        return self._kept(
            of,
            lambda mark: {"event": "prompt", "of": mark, "around": list(make(self.recording.time, self.switches))},
        )["around"]

    def _kept(self, of: Json, make: Callable[[str], PromptEvent]) -> PromptEvent:
        mark = sha256(json.dumps(of).encode()).hexdigest()[:16]
        if mark not in self.rendered:
            found = self.recording.prompts.get(mark)
            if self.replaying and found is None:
                self._no_prompt()
            self.rendered[mark] = found or make(mark)
            if self.recording.version > 1:
                self.trace.add(self.rendered[mark])
        return self.rendered[mark]

    def _render(self, given: Messages | str | None, mark: str, variables: JsonObject) -> PromptEvent:
        tokenizer, moment = self.engine.tokenizer, self.recording.time
        if given is None or isinstance(given, str):
            around = turn(tokenizer, given, moment=moment, **self.switches)
            return {"event": "prompt", "of": mark, "around": list(around)}
        return {
            "event": "prompt",
            "of": mark,
            "ids": chat(tokenizer, given, moment=moment, **{**variables, **self.switches}),
        }

    def _no_prompt(self) -> None:
        """Say of a prompt that a replay makes anew that it may be another one. Raises BadTrace where it must be."""
        if self.recording.version > 1:
            raise BadTrace(
                f"The trace has no prompt of what the run now asks before its tick {self.ticks}: the trace was "
                "made by another version or program, or of another problem."
            )
        if prints_the_time(self.engine.tokenizer):
            self.differences.append(
                "the trace is of version 1, which has no prompts, and the model's chat template prints the time: "
                "the prompt is another one now"
            )

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
