"""What Hogwild! workers are told, in either of two wordings, and where one step of thought ends.

"short": the problem, and that notes of others follow. "published": the structure (sections, step labels, the check for
redundant work) of the paper, arXiv 2504.06261, section 3.3 and appendix C, in words of our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SEPARATOR = "\n\n"
PAST = "### Past steps"
OTHERS = "### Work in progress (others)"
OWN = "### Work in progress (own)"
UNFINISHED = "<...>"
MARK = f"{SEPARATOR}{UNFINISHED}"
CHECK = "Quick check: is what I am about to do already done, or being done by somebody else? (yes/no): "

_PUBLISHED_ENDS = ".?!。۔؟।॥…‽።᠃։჻¶❧"
"""The sixteen marks that end a sentence in the released code, formatting.py."""
_ENDS = tuple(_PUBLISHED_ENDS + "！？⁇⁈⁉︒")
"""With those of full width and the doubled ones, which are kvorum's own."""


@dataclass(frozen=True, slots=True)
class Wording:
    """What workers are told. ``prompt`` makes the user's words of (names, problem, request); ``past``, ``others`` and
    ``own`` are the sections' headings, ``label`` is what a step begins with, of a name and its number, and ``mark``
    stands between steps that are not finished.

    ``openings`` has the first words of the first worker, of the others, in which {} is the first one's name, and of one
    that comes later, who is {}. ``check`` asks whether a step is redundant. ``turns``: what a worker reads stands in
    the user's turn and what it writes in the assistant's; else all stands in the assistant's.
    """

    prompt: Callable[[Sequence[str], str, str], str]
    past: str = ""
    others: str = ""
    own: str = ""
    label: str = ""
    mark: str = ""
    openings: tuple[str, str, str] = ("", "", "")
    check: str = ""
    turns: bool = False

    def opening(self, names: Sequence[str], at: int) -> str:
        """The first words of worker ``at``; none where it is alone."""
        return self.openings[at > 0].format(names[0]) if len(names) > 1 else ""


def _published(names: Sequence[str], problem: str, request: str) -> str:
    team = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    who = f"{len(names)} assistants, {team}, who all write" if len(names) > 1 else f"one assistant, {team}, who writes"
    return f"""One problem is worked on by {who} at the same time. Everyone sees what everyone writes, \
word by word, as it is written. You may split the problem, check each other's results, or try different ways.

The text has three sections:
- "{PAST}": finished steps of everyone, in the order in which they were finished.
- "{OTHERS}": what the others are writing at this moment, not finished yet.
- "{OWN}": the step that you are writing.

Each step begins with its author and number, such as **{names[0]} [1]:**, and ends with an empty line. Keep steps \
short, and write only your own: never somebody else's name, step or heading. The others go on writing while you write: \
look at their work, check and use their results, and never repeat what is done or being done; if you notice that you \
do, stop and do something else that helps. {request or "Write out the whole answer, and end."} Do so as soon as the \
team knows it.

{problem}"""


def _short(names: Sequence[str], problem: str, request: str) -> str:
    notes = "Notes of others who work on this at the same time:" if len(names) > 1 else "Notes:"
    return "\n\n".join(filter(None, (problem, request, notes)))


WORDINGS = {
    "short": Wording(_short, mark=SEPARATOR, turns=True),
    "published": Wording(
        _published,
        PAST,
        OTHERS,
        OWN,
        "**{} [{}]:** ",
        MARK,
        ("I suggest that we split the work like this:", "I see that {} is", "I am {}, new here, and I see that"),
        CHECK,
    ),
}


def private(text: str) -> str:
    """What one worker alone is told, after the finished steps."""
    return f"{SEPARATOR}### Only you know this (own)\n{text}"


def step_ends(text: str, new: int, sentence: bool = True) -> bool:
    """Whether the last ``new`` characters of a step's ``text`` end it.

    They do if they complete an empty line, what precedes it ends a sentence (unless ``sentence`` is False), and no code
    or formula is open.
    """
    at = text.find(SEPARATOR, max(0, len(text) - new - 1))
    if at < 0:
        return False
    before = text[:at].rstrip()
    return (not sentence or before.endswith(_ENDS)) and not _open_fence(before)


def markup(vocabulary: Mapping[str, int], code: bool) -> frozenset[int]:
    """The ids of the tokens that begin a heading, a label or the unfinished mark; in code only the heading's."""
    marks = ("##",) if code else ("##", "**", "<")
    return frozenset(token for text, token in vocabulary.items() if text.lstrip("Ġ▁Ċ \n").startswith(marks))


def words(vocabulary: Mapping[str, int]) -> frozenset[int]:
    """The ids of the tokens that have a letter or a digit."""
    return frozenset(token for text, token in vocabulary.items() if any(map(str.isalnum, text.strip("ĠĊĉ▁"))))


def _open_fence(text: str) -> bool:
    return any(len(re.findall(mark, text)) % 2 for mark in ("```", "~~~", r"\$\$"))
