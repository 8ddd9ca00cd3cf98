"""A person's word on a call: asked before a tool is called that wants it, and given as a command.

The run says in its trace what is to be called (a note ``approval`` with a number) and waits for the command ``approve``
or ``refuse`` with that number as its text, from whoever steers it: a terminal, the page, the API. The word itself is
recorded as something from outside, so that a replay asks nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kvorum.harness.tools.call import Outcome, call_outside, named
from kvorum.harness.tools.tool import Tool
from kvorum.runs.run import Run

APPROVE, REFUSE = "approve", "refuse"
REFUSED = "error: the person who was asked refused this call"
_POLL = 0.02
"""Seconds between two looks at what was said."""


async def approved(run: Run, name: str, arguments: str) -> bool:
    """Ask for a call and wait for the word. Nobody who steers the run: it waits until its caller ends it."""
    number = run.state.asked

    async def ask() -> bool:
        run.note("approval", n=number, tool=name, arguments=arguments)
        while True:
            for command in list(run.commands):
                if command.kind in (APPROVE, REFUSE) and command.text == str(number):
                    run.commands.remove(command)
                    return command.kind == APPROVE
            await asyncio.sleep(_POLL)

    return await run.outside(f"{APPROVE} {name}", ask)


async def permitted(run: Run, tools: Sequence[Tool], name: str, arguments: str) -> bool:
    """Whether a call may be made: a person's word where the tool wants one, and yes where it does not.

    Calls that are made at the same time are asked for one after the other before any of them begins, for a replay
    takes what came from outside in the order in which it was asked for.
    """
    chosen = named(tools, name)
    return chosen is None or not chosen.approval or await approved(run, name, arguments)


async def call_approved(
    run: Run, tools: Sequence[Tool], name: str, arguments: str, *, seconds: float, chars: int
) -> Outcome:
    """``call_outside``, behind a person's word where the tool wants one."""
    if not await permitted(run, tools, name, arguments):
        return Outcome("refused", REFUSED)
    return await call_outside(run, tools, name, arguments, seconds=seconds, chars=chars)
