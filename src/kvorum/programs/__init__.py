"""The programs: known ways of organising workers, each a short text over views.

One more is a folder here and a line below; one that is not kvorum's is loaded from a file, a module or a package.
"""

from __future__ import annotations

from kvorum.errors import ProgramError
from kvorum.own_program_names import is_own
from kvorum.programs import own
from kvorum.programs.agent.agent import agent as agent
from kvorum.programs.ask.ask import ask as ask
from kvorum.programs.async_reasoning.async_reasoning import async_reasoning as async_reasoning
from kvorum.programs.branch import branch as branch
from kvorum.programs.consensus.consensus import consensus as consensus
from kvorum.programs.crew.crew import crew as crew
from kvorum.programs.decide import adecide as adecide
from kvorum.programs.decide import decide as decide
from kvorum.programs.fields.fields import fields as fields
from kvorum.programs.hogwild.hogwild import hogwild as hogwild
from kvorum.programs.ladder.ladder import ladder as ladder
from kvorum.programs.network.network import network as network
from kvorum.programs.outline.outline import outline as outline
from kvorum.programs.patch import patch as patch
from kvorum.programs.plain import plain as plain
from kvorum.programs.relay.relay import relay as relay
from kvorum.programs.roleplay import roleplay as roleplay
from kvorum.programs.solo import solo as solo
from kvorum.programs.team_ladder import team_ladder as team_ladder
from kvorum.programs.thread.thread import thread as thread
from kvorum.programs.tree.tree import tree as tree
from kvorum.programs.vote import vote as vote
from kvorum.runs.program import REGISTRY as REGISTRY
from kvorum.runs.program import Program
from kvorum.runs.program import find as find

DEFAULT = plain.name
"""The program that works where nobody says which."""


def load(where: str) -> Program:
    """The program that a person at this machine names: as ``find``, or ``file.py:name`` or ``package.module:name``,
    which are imported and then found by the name that they declare.

    Raises:
        UnknownName: no such name.
        ProgramError: the file or module cannot be imported or has no such program, or its name is taken.
    """
    if not is_own(where):
        return find(where)
    found = own.load(where)
    known = REGISTRY.get(found.name)
    if known is not None and known.source != found.source:
        raise ProgramError(f"{where} calls itself {found.name}, and there is such a program; give it another name.")
    REGISTRY[found.name] = found
    return found


REGISTRY |= {found.name: found for found in list(globals().values()) if isinstance(found, Program)}
REGISTRY |= own.installed(REGISTRY)
