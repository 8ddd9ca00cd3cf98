"""Problems of the ladder as items of the lab: the family ``ladder`` of one worker, ``team_ladder`` of a team."""

from __future__ import annotations

import random

from kvorum.errors import BadRequest
from kvorum.tasks.item import Item
from kvorum.tasks.ladder.kinds import KINDS
from kvorum.tasks.ladder.problem import Problem
from kvorum.tasks.ladder.teams import KINDS as TEAM_KINDS
from kvorum.tasks.ladder.teams import ROUNDS, SKILLS, team_problem
from kvorum.tasks.scoring import joined
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


def team_ladder(seed: int, names: tuple[str, ...], *, kind: str = "") -> Item:
    """A problem of that kind for four agents on a graph; without one the seeds go in turn through all."""
    chosen = kind or list(TEAM_KINDS)[seed % len(TEAM_KINDS)]
    check_known("kind of problem of the team ladder", chosen, TEAM_KINDS)
    if len(names) != 4:
        raise BadRequest(f"The team ladder is for 4 workers, not for {len(names)}.")
    made = team_problem(chosen, random.Random(f"{chosen}/{seed}"), names)
    about = made.kind
    told = {name: about.told.format(value) for name, value in made.begins.items()}
    given = {
        "neighbours": {name: list(others) for name, others in made.neighbours.items()},
        "ranks": about.field == "colour",
        "has": told if about.always else {},
        "begins": {} if about.always else told,
        "request": about.request,
        "rounds": ROUNDS,
        "skills": [skill.as_dict() for skill in SKILLS],
        "needed": about.skill.name,
        "other": about.other.name,
        "message": made.message,
        "message_words": made.message_words,
    }
    whole = [
        about.goal,
        "; ".join(f"{a} and {b} are neighbours" for a, b in made.edges) + ".",
        *(f"{name}: {words}" for name, words in told.items()),
        f"Answer for every agent, in this form: {joined(dict.fromkeys(names, 'ANSWER'))}",
    ]
    return Item(
        "team_ladder",
        seed,
        about.goal,
        made.score,
        joined(made.play()),
        lambda draw: joined(made.guess(draw)),
        joined(dict.fromkeys(names, about.options[0] if about.options else "10")),
        whole="\n".join(whole),
        given={"team_ladder": given},
        programs=("team_ladder",),
    )
