"""The kinds of problems: which of memory and skill each one needs, both, or one of them while the other distracts.

    facts      memory: where somebody lives, who has moved since
    operator   skill: what a made-up word does to a number
    units      both: an amount that was told, in a made-up measure
    dates      both: a date that was told, and a rule that counts days from it

Skills are a fixed set, so that each is encoded once; what is told and asked is drawn from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from kvorum.tasks.ladder.problem import Note, Problem, Procedure

PEOPLE = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas")
TOWNS = ("Oslo", "Lima", "Cairo", "Paris", "Delhi", "Quito")
COLOURS = ("red", "blue", "green", "white", "black", "brown")

OPERATORS: dict[str, tuple[str, Callable[[int], int]]] = {
    "brell": ("double it and then add 5", lambda x: 2 * x + 5),
    "tarn": ("double it and then take away 3", lambda x: 2 * x - 3),
    "mosk": ("add 17 to it", lambda x: x + 17),
    "fend": ("multiply it by 3", lambda x: 3 * x),
}
MEASURES: dict[str, tuple[str, str, int]] = {
    "water": ("brims", "dols", 6),
    "cloth": ("spans", "hems", 4),
}
RULES: dict[str, tuple[str, str, int]] = {
    "mill": ("inspection", "delivery", 3),
    "ship": ("unloading", "arrival", 2),
}

SKILLS: dict[str, Procedure] = {
    **{
        name: Procedure(name, f"what it means to {name} a number", f"To {name} a number, {rule}.")
        for name, (rule, _) in OPERATORS.items()
    },
    **{
        f"{name}-measures": Procedure(
            f"{name}-measures",
            f"measures of {name} and how to turn one into another",
            f"To turn {large} into {small}, multiply the number of {large} by {how_many}.",
        )
        for name, (large, small, how_many) in MEASURES.items()
    },
    **{
        f"{name}-days": Procedure(
            f"{name}-days",
            f"on which day something is done with a {name}",
            f"To find the day of the {what} of a {name}, add {days} to the day of its {event}.",
        )
        for name, (what, event, days) in RULES.items()
    },
    "reading-notes": Procedure(
        "reading-notes",
        "how to read notes that contradict each other",
        "Of two notes that contradict each other, the one that stands later is true.",
    ),
    "writing-notes": Procedure(
        "writing-notes",
        "how to write a note that others understand",
        "Of every note that you write, the first word is the name of whom it is about.",
    ),
}


def facts(draw: random.Random) -> Problem:
    """Where somebody lives. One of those asked about in three was told to have moved, and both notes are remembered."""
    people = draw.sample(PEOPLE, 3)
    towns = [draw.choice(TOWNS) for _ in people]
    notes = [Note(f"{name} lives in {town}.") for name, town in zip(people, towns, strict=True)]
    who = draw.randrange(3)
    new = draw.choice([town for town in TOWNS if town != towns[who]])
    notes.append(Note(f"{people[who]} has moved to {new}.", notes[who].text))
    other = draw.choice([at for at in range(3) if at != who])
    asked, answer = (who, new) if draw.random() < 2 / 3 else (other, towns[other])
    question = f"In which town does {people[asked]} live now?"
    return _problem(draw, question, answer, notes, "reading-notes", "writing-notes", TOWNS)


def operator(draw: random.Random) -> Problem:
    """What a made-up word does to a number."""
    name = draw.choice(sorted(OPERATORS))
    number = draw.randint(6, 20)
    notes = _small_talk(draw)
    other = draw.choice([one for one in sorted(OPERATORS) if one != name])
    return _problem(draw, f"Now {name} the number {number}.", str(OPERATORS[name][1](number)), notes, name, other)


def units(draw: random.Random) -> Problem:
    """How much something holds, in another measure than that in which it was told; half of them were corrected."""
    kind, holder = draw.choice((("water", "barrel"), ("cloth", "chest")))
    large, small, factor = MEASURES[kind]
    colour, count = draw.choice(COLOURS), draw.randint(3, 9)
    count, notes = _told(draw, f"The {colour} {holder} holds {{}} {large}.", count, range(3, 10))
    question = f"How many {small} does the {colour} {holder} hold?"
    other = next(one for one in MEASURES if one != kind)
    return _problem(draw, question, str(count * factor), notes, f"{kind}-measures", f"{other}-measures")


def dates(draw: random.Random) -> Problem:
    """On which day something is done, counted from a date that was told; half of these were put off."""
    kind = draw.choice(sorted(RULES))
    what, event, later = RULES[kind]
    colour, day = draw.choice(COLOURS), draw.randint(2, 25)
    day, notes = _told(draw, f"The {event} of the {colour} {kind} is on May {{}}.", day, range(2, 26))
    other = next(one for one in RULES if one != kind)
    question = f"On which day of May is the {what} of the {colour} {kind}?"
    return _problem(draw, question, str(day + later), notes, f"{kind}-days", f"{other}-days")


KINDS: dict[str, Callable[[random.Random], Problem]] = {make.__name__: make for make in (facts, operator, units, dates)}
"""Each kind of problem by name."""


def _told(draw: random.Random, words: str, number: int, others: range) -> tuple[int, list[Note]]:
    """A number as it was told among small talk, and in half of all cases corrected: what it is, and the notes."""
    notes = [Note(words.format(number)), *_small_talk(draw)]
    if draw.random() < 0.5:
        number = draw.choice([one for one in others if one != number])
        notes.append(Note(words.format(number), notes[0].text, replaces=True))
    return number, notes


def _small_talk(draw: random.Random) -> list[Note]:
    """Two notes that have nothing to do with what is asked."""
    return [Note(f"{person} lives in {draw.choice(TOWNS)}.") for person in draw.sample(PEOPLE, 2)]


def _problem(
    draw: random.Random,
    question: str,
    answer: str,
    notes: Sequence[Note],
    needed: str,
    other: str,
    options: Sequence[str] = (),
) -> Problem:
    """With six of the skills to choose from, the needed one and the other one among them."""
    rest = draw.sample([name for name in SKILLS if name not in (needed, other)], 4)
    names = [name for name in SKILLS if name in (needed, other, *rest)]
    return Problem(question, answer, notes, [SKILLS[name] for name in names], needed, other, options)
