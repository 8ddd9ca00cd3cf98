"""What Hogwild! workers are told, and where one step of thought ends.

The wording is our own; the structure (sections, step labels, the check for redundant work) follows the paper,
arXiv 2504.06261, section 3.3 and appendix C.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SEPARATOR = "\n\n"
PAST = "### Past steps"
OTHERS = "### Work in progress (others)"
OWN = "### Work in progress (own)"
UNFINISHED = "<...>"
CHECK = "Quick check: is what I am about to do already done, or being done by somebody else? (yes/no): "

# sentence ends of the scripts that models commonly write
_ENDS = tuple(".!?…。！？؟।۔։።⁇⁈⁉︒")


def rules(names: Sequence[str], request: str) -> str:
    """The instructions that precede the problem."""
    team = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    who = f"{len(names)} assistants, {team}, who all write" if len(names) > 1 else f"one assistant, {team}, who writes"
    return f"""One problem is worked on by {who} at the same time. Everyone sees what everyone writes, \
word by word, as it is written. You may split the problem, check each other's results, or try different ways.

The text has three sections:
- "{PAST}": finished steps of everyone, in the order in which they were finished.
- "{OTHERS}": what the others are writing at this moment, not finished yet.
- "{OWN}": the step that you are writing.

Each step begins with its author and number, such as **{names[0]} [1]:**, and ends with an empty line. Keep steps \
short. The others go on writing while you write: look at their work, use their results, and never repeat what is done \
or being done; if you notice that you do, stop and do something else that helps. {request} Do so as soon as the team \
knows it.

"""


def label(name: str, step: int) -> str:
    """What a step begins with."""
    return f"**{name} [{step}]:** "


def opening(names: Sequence[str], at: int) -> str:
    """The first words of worker ``at``: the first one proposes how to work, the others say who they are."""
    if at == 0 and len(names) > 1:
        return f"Hi, I am {names[0]}. I suggest that we split the work like this:"
    return f"Hi, I am {names[at]}."


def step_ends(text: str, new: int) -> bool:
    """Whether the last ``new`` characters of a step's ``text`` end it.

    They do if they complete an empty line, what precedes it ends a sentence, and no code or formula is open.
    """
    at = text.find(SEPARATOR, max(0, len(text) - new - 1))
    if at < 0:
        return False
    before = text[:at].rstrip()
    return before.endswith(_ENDS) and not _open_fence(before)


def _open_fence(text: str) -> bool:
    return any(len(re.findall(mark, text)) % 2 for mark in ("```", "~~~", r"\$\$"))
