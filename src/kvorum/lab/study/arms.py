"""Arms of a study: a program over one of the channels that it declares, as the parameters that the program takes.

A channel is how the workers' words pass between them. The controls of a shared cache are channels too: the same team
whose blocks are hidden ("none"), another problem's ("mismatched"), "zeroed", "random", or encoded anew ("text").
"""

from __future__ import annotations

from kvorum.errors import UnknownName
from kvorum.jsontypes import Json
from kvorum.programs import REGISTRY, find
from kvorum.runs.program import Program
from kvorum.tasks.item import Item
from kvorum.wording import unknown

MISMATCHED = "mismatched"
"""The channel that shows a team on another problem, which its program takes as ``other`` and ``other_private``."""

FINAL_TOKENS = 32
"""The most tokens of a forced answer, the same for every arm."""


def in_study(name: str) -> Program:
    """A program that can stand in a study: one with channels. Raises UnknownName."""
    if name not in REGISTRY or not REGISTRY[name].channels:
        known = [known.name for known in REGISTRY.values() if known.channels]
        raise UnknownName(unknown("program", name, known, owner="A study"))
    return find(name)


def is_alone(name: str) -> bool:
    """Whether the program has one worker, which a study gives everything and puts in the place of a team."""
    return in_study(name).most_workers == 1


def fits(program: Program, item: Item) -> bool:
    """Whether the program can be given the item. One worker alone can be given anything."""
    if program.most_workers == 1:
        return True
    return program.name in item.programs if item.programs or program.own_tasks else True


def parameters(program: Program, channel: str, item: Item, other: Item) -> dict[str, Json]:
    """The program's parameters; ``other`` is the item whose blocks are shown where they are mismatched."""
    params = dict(program.channels[channel])
    if program.name in item.programs:
        params |= item.params
    else:
        params["final_tokens"] = FINAL_TOKENS
    if channel == MISMATCHED:
        private = dict(other.private)
        by_name = program.parameter("other_private").kind == "mapping"
        params |= {"other": other.prompt, "other_private": private if by_name else list(private.values())}
    return params
