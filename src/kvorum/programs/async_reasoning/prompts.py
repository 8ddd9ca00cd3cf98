"""What thinker and writer are told, for models with a think part and, in a form of kvorum's own, for those without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvorum.runs.run import Run

Form = Literal["auto", "think", "notes"]

OPEN, CLOSE = "<think>", "</think>"
ENOUGH = "Is there enough above, thoughts and answer so far, to write the next paragraph of the answer?"
NOTICE = "\n\n(There is more from the user now.)\n\n"
PARAGRAPH = "\n\n"


@dataclass(frozen=True, slots=True)
class Wording:
    """What stands before thoughts, and between thoughts and answer in the writer's view; ``thinker`` and ``answer`` in
    the thinker's, where it sees the answer. ``close``: the id that ends the thoughts, beside those that end a text."""

    thoughts: str
    writer: str
    answer: str
    thinker: str
    close: int | None = None


NOTES = Wording(
    thoughts="Notes on the way to an answer, in short paragraphs:\n\n",
    writer="\n\nThe answer, as far as the notes go:\n\n",
    answer="The answer so far:\n\n",
    thinker="\n\n(It goes on while I take notes.) Notes on the way, in short paragraphs:\n\n",
)


def wording(run: Run, form: Form, behind: str) -> Wording:
    """The words of a form; "auto" takes the think part where the model has one. ``behind``: what opens a reply.

    A template that opens the think part itself is not told to twice; see ``unopened``.
    """
    known = {} if run.engine.tokenizer is None else run.engine.tokenizer.get_added_vocab()
    if form == "notes" or (form == "auto" and not (OPEN in known and CLOSE in known)):
        return NOTES
    opened = "" if behind.rstrip().endswith(OPEN) else f"{OPEN}\n"
    return Wording(
        thoughts=opened,
        writer=f"\n{CLOSE}\n\n",
        answer="",
        thinker=f"\n\n{OPEN}\n(The answer goes on above while I think.)\n\n",
        close=known.get(CLOSE),
    )


def unopened(behind: str) -> str:
    """What opens a reply, without a think part that the template opens: where notes or the answer come first."""
    return behind.rstrip().removesuffix(OPEN) if behind.rstrip().endswith(OPEN) else behind
