"""The programs: known ways of organising workers, each a short text over views."""

from __future__ import annotations

from kvorum.errors import UnknownName
from kvorum.programs.consensus.consensus import consensus
from kvorum.programs.hogwild.hogwild import hogwild
from kvorum.programs.network.network import network
from kvorum.programs.relay.relay import relay
from kvorum.programs.roleplay.roleplay import roleplay
from kvorum.programs.solo import solo
from kvorum.programs.thread.thread import thread
from kvorum.programs.tree.tree import tree
from kvorum.programs.vote import vote
from kvorum.runs.program import Program, programs_are_found_by
from kvorum.wording import unknown

REGISTRY: dict[str, Program] = {
    program.name: program for program in (solo, vote, hogwild, network, consensus, roleplay, relay, tree, thread)
}
"""The programs that come with kvorum, by name."""
DEFAULT = hogwild.name
"""The program that works where nobody says which."""


def find(name: str) -> Program:
    """The program of that name. Raises UnknownName with the near ones."""
    if name in REGISTRY:
        return REGISTRY[name]
    raise UnknownName(unknown("program", name, REGISTRY))


programs_are_found_by(find)

__all__ = [
    "DEFAULT",
    "REGISTRY",
    "consensus",
    "find",
    "hogwild",
    "network",
    "relay",
    "roleplay",
    "solo",
    "thread",
    "tree",
    "vote",
]
