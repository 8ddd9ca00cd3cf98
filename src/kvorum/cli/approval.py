"""The word of whoever sits at the terminal on a call of a tool that wants one."""

from __future__ import annotations

import sys

from kvorum.harness.tools.approval import APPROVE, REFUSE
from kvorum.jsontypes import JsonObject
from kvorum.runs.steering import Command
from kvorum.wording import harmless


def ask_approval(asked: JsonObject, *, yes: bool) -> Command:
    """Ask for the call that a run's note ``approval`` tells; ``yes``: it is approved unasked.

    Where nobody sits at a terminal it is refused, which is said on standard error.
    """
    number, call = str(asked["n"]), harmless(f"{asked['tool']}({asked['arguments']})")
    if yes:
        return Command(APPROVE, text=number)
    if not sys.stdin.isatty():
        print(f"kvorum: {call} wants a person's word, and nobody is here to ask: refused", file=sys.stderr)
        return Command(REFUSE, text=number)
    print(f"The worker wants to call {call}. Let it? [y/N] ", end="", file=sys.stderr, flush=True)
    said = sys.stdin.readline().strip().lower()
    return Command(APPROVE if said in ("y", "yes") else REFUSE, text=number)
