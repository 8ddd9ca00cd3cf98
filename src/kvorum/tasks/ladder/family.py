"""Problems of the ladder as items of the lab: the family ``ladder``."""

from __future__ import annotations

import random

from kvorum.tasks.item import Item
from kvorum.tasks.ladder.kinds import KINDS
from kvorum.tasks.ladder.problem import Problem
from kvorum.wording import check_known


def problem(kind: str, seed: int) -> Problem:
    """The problem of that kind and seed. Raises UnknownName."""
    check_known("kind of problem of the ladder", kind, KINDS)
    return KINDS[kind](random.Random(f"{kind}/{seed}"))


def ladder(seed: int, names: tuple[str, ...], *, kind: str = "") -> Item:
    """A problem of that kind; without one the seeds go in turn through all."""
    made = problem(kind or list(KINDS)[seed % len(KINDS)], seed)
    given = {
        "notes": [note.as_dict() for note in made.notes],
        "skills": [skill.as_dict() for skill in made.skills],
        "needed": made.needed,
        "other": made.other,
        "message": made.message,
        "message_words": made.message_words,
    }
    needed = next(skill for skill in made.skills if skill.name == made.needed)
    whole = "\n".join([needed.body, *(note.text for note in made.notes), made.question])
    return Item(
        "ladder",
        seed,
        made.question,
        made.score,
        made.answer,
        made.guess,
        made.options[0] if made.options else "50",
        whole=whole,
        given={"ladder": given},
        texts={"ladder": made.question},
    )
