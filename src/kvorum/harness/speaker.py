"""Speakers: how programs let workers talk to each other in turns, whoever speaks for them.

Programs in which workers send each other messages are written against a ``Speaker``: it is given the turns of all who
speak at the same time and returns what they say. ``ModelSpeaker`` (in ``model_speaker.py``) lets the model speak;
``scripted`` lets a plain function speak, so that a protocol and its scoring can be run without a model. ``ask`` checks
what is said and asks again. Somebody's words come to another worker as a ``Quote``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TypeVar

from kvorum.kv import Block, Span
from kvorum.sampling.grammar import Grammar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of ``sender``: the ``text``, and the ``span`` of tokens that holds it where a model wrote it."""

    text: str
    span: Span | None = None
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a worker is told before it speaks: ``parts``, one behind the other, quotes among them.

    ``system`` begins a new thread under these rules; with None the worker's thread goes on. ``tokens``: the most it may
    say. ``temperature`` None is the run's. ``wants`` names what it is to say, in its program's words ("vote"), also
    where it is asked again: scripts go by it. ``grammar``: what it may say; None: as the run has it. ``ticks``: how
    many it may take; None: no limit but its tokens.
    """

    parts: Sequence[str | Quote]
    system: str | None = None
    tokens: int = 256
    temperature: float | None = None
    wants: str = ""
    grammar: Grammar | None = None
    ticks: int | None = None

    @property
    def text(self) -> str:
        """What it is told, as text."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)


@dataclass(frozen=True, slots=True, eq=False)
class TurnReply:
    """What a worker, the ``speaker``, said: its ``text``.

    ``end``: it "ended" of itself, was "cut" at its limit of tokens, was "late" for its limit of ticks, "failed" for its
    grammar could not be followed, was "stopped" by the budget or by somebody who wants the answer now, or has "left".
    If a model spoke, its tokens stand in ``block`` from index ``start`` on, and ``pieces`` are the texts of the single
    tokens. ``ticks``: how many it took.
    """

    text: str
    end: str = "ended"
    speaker: str = ""
    block: Block | None = None
    start: int = 0
    pieces: Sequence[str] = field(default=())
    ticks: int = 0

    def quote(self, lo: int = 0, hi: int | None = None) -> Quote:
        """Characters ``lo`` to ``hi``, with the fewest tokens that hold them: the edges may hold a mark more."""
        hi = len(self.text) if hi is None else hi
        words = self.text[lo:hi]
        if self.block is None or not words:
            return Quote(words, None, self.speaker)
        ends = list(accumulate(map(len, self.pieces)))
        first = next(at for at, end in enumerate(ends) if end > lo)
        while first and not self.pieces[first - 1]:  # tokens of a character that a later one completed
            first -= 1
        last = next(at for at, end in enumerate(ends) if end >= hi)
        stop = min(self.start + last + 1, len(self.block))
        return Quote(words, Span(self.block, min(self.start + first, stop), stop), self.speaker)


Speaker = Callable[[Mapping[str, Turn]], Awaitable[dict[str, TurnReply]]]

SpeakerScript = Callable[[str, Turn], str]
"""What a worker of that name says to a turn."""


def scripted(script: SpeakerScript) -> Speaker:
    """A speaker without a model: ``script(worker, turn)`` returns what the worker says."""

    async def speak(turns: Mapping[str, Turn]) -> dict[str, TurnReply]:
        return {name: TurnReply(script(name, turn), speaker=name) for name, turn in turns.items()}

    return speak


def mixed(speakers: Mapping[str, Speaker], other: Speaker) -> Speaker:
    """The workers named in ``speakers`` speak through theirs, everybody else through ``other``."""

    async def speak(turns: Mapping[str, Turn]) -> dict[str, TurnReply]:
        said: dict[str, TurnReply] = {}
        for speaker in dict.fromkeys([*speakers.values(), other]):
            mine = {name: turn for name, turn in turns.items() if speakers.get(name, other) is speaker}
            said |= await speaker(mine) if mine else {}
        return said

    return speak


GONE = ("late", "left", "stopped")
"""Why nobody is asked again."""


class Malformed(ValueError):
    """What was said cannot be used; the message says why and is told to the worker when it is asked again."""


async def ask(
    speaker: Speaker,
    turns: Mapping[str, Turn],
    read: Callable[[TurnReply], T],
    *,
    again: str,
    retries: int,
    deadline: int | None = None,
) -> tuple[dict[str, T], dict[str, str]]:
    """Let workers speak and ``read`` what they say; ask those again, in the same thread, whose words are Malformed.

    ``deadline``: so many ticks all of it may take; who has not ended by then is "late", whatever was written.
    Returns what was read by worker, and for the others why not: the last complaint, "late", "left" or "stopped".
    """
    found: dict[str, T] = {}
    failed: dict[str, str] = {}
    spent = 0
    for _ in range(retries + 1):
        if deadline is not None:
            turns = {name: replace(turn, ticks=deadline - spent) for name, turn in turns.items()}
        replies = await speaker(turns)
        spent += max((said.ticks for said in replies.values()), default=0)
        for name, said in replies.items():
            try:
                if said.end == "late":
                    raise Malformed("late")
                found[name] = read(said)
                failed.pop(name, None)
            except Malformed as error:
                failed[name] = said.end if said.end in ("left", "stopped") else str(error)
        if deadline is not None and spent >= deadline:
            return found, {name: why if why in GONE else "late" for name, why in failed.items()}
        turns = {
            name: replace(turns[name], parts=[f"{reason} {again}"], system=None)
            for name, reason in failed.items()
            if name in turns and reason not in GONE
        }
        if not turns:
            break
    return found, failed
