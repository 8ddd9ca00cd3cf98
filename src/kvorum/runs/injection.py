"""Injections: what is done to a run beside its model, so that what goes wrong in it is known because it was put there.

They are data and part of the run's start event, so that a replayed or resumed run has them too. One that stands for a
fault says so in the trace, as the event ``fault``, in the moment in which it first takes effect; one without a fault's
name is a line of a script. Not covered: runs inside runs, forced answers, grammars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

import torch
from torch import Tensor

from kvorum.engine.engine import EngineCore
from kvorum.engine.text import encode, vocabulary
from kvorum.errors import BadRequest
from kvorum.runs.recorder import Recorder
from kvorum.runs.steering import Command
from kvorum.runs.worker import Worker
from kvorum.sampling.reference import logprob
from kvorum.sampling.sampler import draw
from kvorum.sampling.sampling import Draw, Pick, packed, unpacked
from kvorum.store.events import InjectionData
from kvorum.wording import unknown

KINDS = ("say", "mute", "stop", "link")


@dataclass(frozen=True, slots=True)
class Injection:
    """One intervention on ``worker``. ``turn`` counts from 0: how often it was given something to answer to.

    - ``say``: when it has written ``at`` tokens of ``turn``, it goes on with ``text``, whatever the model would write;
      with ``end`` its turn is over then.
    - ``mute``: it never picks a token that holds ``text``.
    - ``stop``: it gets no more ticks, once it has written ``at`` tokens of ``turn`` or is beyond it.
    - ``link``: its messages to ``to``, from number ``turn`` on, arrive ``lag`` later, or never (None), or as ``text``.
      The program says what it counts: rounds from 1, or steps of a worker and ticks.
    """

    kind: str
    worker: str
    fault: str = ""
    turn: int = 0
    at: int = 0
    text: str = ""
    end: bool = False
    to: str = ""
    lag: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadRequest(unknown("injection", self.kind, KINDS))
        if min(self.turn, self.at, self.lag or 0) < 0:
            raise BadRequest(f"An injection's turn, at and lag must be at least 0: {self}.")
        if (self.kind == "link") != bool(self.to) or (self.kind == "mute" and not self.text):
            raise BadRequest(f"A link injection needs a reader in 'to', a mute one a text, no other a reader: {self}.")

    def as_data(self) -> InjectionData:
        """The injection as a trace holds it, without what it does not say."""
        return cast("InjectionData", asdict(self))


@dataclass(frozen=True, slots=True)
class Link:
    """How a message arrives: ``lag`` later (None: never), and as ``text`` if that is not None."""

    lag: int | None = 0
    text: str | None = None


WHOLE = Link()


def whole(sender: str, reader: str, number: int) -> Link:
    """Every message arrives as it was sent."""
    return WHOLE


class Injections:
    """The injections of a run, and how far they are."""

    def __init__(
        self, injections: Sequence[Injection], names: Sequence[str], engine: EngineCore, recorder: Recorder
    ) -> None:
        self.injections = tuple(injections)
        for one in self.injections:
            if missing := [name for name in (one.worker, one.to) if name and name not in names]:
                raise BadRequest(f"An injection speaks of {missing[0]}; the workers are: {', '.join(names)}.")
        self.lifted = False
        """Whether words are put in nobody's mouth any more, because an answer is forced."""
        self._engine, self._recorder = engine, recorder
        self._turns: dict[str, int] = {}
        self._begun: dict[str, int] = {}
        self._ids: dict[Injection, list[int]] = {}
        self._masks: dict[str, Tensor] = {}
        self._active: set[Injection] = set()

    def pick(self, worker: Worker, logits: Tensor, asked: Draw) -> Pick:
        """A worker's next token: the injected one, else one that is drawn from ``logits [vocab]`` as ``asked``."""
        allowed = None if worker.allow is None else worker.allow(logits)
        if worker.matcher is not None:
            legal = torch.from_numpy(unpacked(worker.matcher.bits(), len(logits)))
            allowed = legal if allowed is None else allowed.to("cpu") & legal
        forced, allowed = self._constrain(worker, allowed) if self.injections else (None, allowed)
        if forced is not None:
            return Pick(forced, logprob(logits, forced))
        return draw(logits, replace(asked, allowed=None if allowed is None else packed(allowed)))

    def waits(self, worker: Worker) -> bool:
        """Whether its token cannot be drawn with the tick, because the logits decide how: ``pick`` must be called."""
        return bool(self.injections) or worker.allow is not None

    def _constrain(self, worker: Worker, allowed: Tensor | None) -> tuple[int | None, Tensor | None]:
        """What a worker must pick now (None: as it likes), and among which ids (bool ``[vocab]``; None: all)."""
        name = worker.name
        if not worker.picked:  # all that it is fed was given to it: a new turn
            self._turns[name] = self._turns.get(name, -1) + 1
            self._begun[name] = len(worker.ids)
        forced: int | None = None
        written = len(worker.ids) - self._begun.get(name, 0)
        for one in self.injections:
            if one.worker != name or self.lifted:
                continue
            if one.kind == "mute":
                self._activate(one)
                mask = self._mask(one.text)
                allowed = mask if allowed is None else allowed.to("cpu") & mask
            elif one.kind == "say" and one.turn == self._turns[name] and written >= one.at:
                ids = self._words(one)
                if written - one.at < len(ids):
                    self._activate(one)
                    forced = ids[written - one.at]
        return forced, allowed

    def commands(self, workers: Sequence[Worker]) -> list[Command]:
        """Commands for those of the run's ``workers`` who stop before the next tick, each once."""
        found = []
        for one in self.injections:
            if one.kind != "stop" or one in self._active:
                continue
            worker = next(worker for worker in workers if worker.name == one.worker)
            turn = self._turns.get(one.worker, -1)
            written = len(worker.ids) - self._begun.get(one.worker, 0)
            if turn > one.turn or (turn == one.turn and written >= one.at):
                if worker.active:
                    self._activate(one)
                    found.append(Command("leave", one.worker))
                self._active.add(one)
        return found

    def stopped(self, name: str) -> bool:
        """Whether a worker was stopped for good."""
        return any(one.kind == "stop" and one.worker == name and one in self._active for one in self.injections)

    @property
    def links(self) -> bool:
        """Whether any message is late, lost or changed."""
        return any(one.kind == "link" for one in self.injections)

    def link(self, sender: str, reader: str, number: int) -> Link:
        """How a program must pass on the sender's message of that number: as sent, but for what is injected."""
        for one in self.injections:
            if one.kind == "link" and (one.worker, one.to) == (sender, reader) and number >= one.turn:
                self._activate(one)
                return Link(0, one.text) if one.text else Link(one.lag)
        return WHOLE

    def _activate(self, one: Injection) -> None:
        """Record that an injection takes effect, the first time that it does."""
        if one.fault and one not in self._active:
            self._recorder.fault(one.as_data())
        self._active.add(one)

    def _words(self, one: Injection) -> list[int]:
        """The ids of its text, with the end token where its turn ends."""
        if one not in self._ids:
            tokenizer, ends = self._engine.tokenizer, self._engine.ends
            end = getattr(tokenizer, "eos_token_id", None)
            last = [end if end in ends else min(ends)] if one.end and ends else []
            self._ids[one] = encode(tokenizer, one.text) + last
        return self._ids[one]

    def _mask(self, text: str) -> Tensor:
        """Bool ``[vocab]``: the tokens that do not hold ``text``."""
        if text not in self._masks:
            size = self._engine.shape.vocab
            mask = torch.ones(size, dtype=torch.bool)
            mask[[token for piece, token in vocabulary(self._engine.tokenizer, size).items() if text in piece]] = False
            self._masks[text] = mask
        return self._masks[text]
