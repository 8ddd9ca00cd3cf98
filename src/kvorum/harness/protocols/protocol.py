"""Whose turn it is and when it ends: a small machine of steps, checked before anybody speaks.

    talk = Protocol({"instruct": {"go on": "solve"}, "solve": {"go on": "instruct"}}, start="instruct", most=40)
    played = await talk.play({"instruct": instruct, "solve": solve})

A step is done by its function, which says how it came out. The outcome leads to the next step, or, where it leads
nowhere, is the end, by its name. After ``most`` steps the end is "cap".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from kvorum.errors import BadRequest
from kvorum.wording import unknown

CAP = "cap"
"""The end when there were as many steps as there may be."""
Act = Callable[[], Awaitable[str]]
"""Does a step; how it came out."""


@dataclass(frozen=True, slots=True)
class Played:
    """How it went: the ``end``, and the steps that were done, each with its outcome."""

    end: str
    steps: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Protocol:
    """``steps``: for each step, which outcome leads to which step. ``most``: steps in all.

    Raises:
        BadRequest: there is no step that it begins with, one leads to a step that there is not, or one is never come
            to.
    """

    steps: Mapping[str, Mapping[str, str]]
    start: str
    most: int

    def __post_init__(self) -> None:
        if self.start not in self.steps:
            raise BadRequest(unknown("step", self.start, self.steps, owner="The protocol"))
        if self.most < 1:
            raise BadRequest(f"A protocol has at least 1 step; most={self.most}.")
        for name, outcomes in self.steps.items():
            for outcome, target in outcomes.items():
                if target not in self.steps:
                    there = unknown("step", target, self.steps)
                    raise BadRequest(f"The step {name} leads to {target!r} when it comes out {outcome!r}. {there}")
        if lost := [name for name in self.steps if name not in self.reached()]:
            raise BadRequest(f"The step {lost[0]} is never come to; let another lead there, or take it out.")

    def reached(self) -> set[str]:
        """The steps that can be come to."""
        found = {self.start}
        waiting = [self.start]
        while waiting:
            new = set(self.steps[waiting.pop()].values()) - found
            found |= new
            waiting += new
        return found

    async def play(self, acts: Mapping[str, Act]) -> Played:
        """Do one step after the other until an outcome leads nowhere, or there were ``most``."""
        done: list[tuple[str, str]] = []
        step = self.start
        while len(done) < self.most:
            outcome = await acts[step]()
            done.append((step, outcome))
            following = self.steps[step].get(outcome)
            if following is None:
                return Played(outcome, done)
            step = following
        return Played(CAP, done)
