"""Asking a colleague: each worker wants a number that exactly one other one was told, and nobody knows who.

A worker has to say what it wants, find among the others' questions the one that it can answer, answer it, and take its
own answer from somebody else's words. Whoever sees nobody can only guess.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from kvorum.errors import BadRequest
from kvorum.tasks.item import Item
from kvorum.tasks.scoring import AnswerPart, Score, joined, split

KEYS = split(
    "anchor, beacon, castle, desert, eagle, forest, galaxy, harbor, insect, jungle, kitten, ladder, meadow, nickel, "
    "ocean, planet, quartz, rocket, saddle, temple, violin, walnut, yogurt, zipper"
)
"""What numbers are told of."""
LOW, HIGH = 10, 49
"""The least and the largest number."""


PROMPT = "Ask for what you want and answer what you are asked"


def told(facts: Mapping[str, str], want: str) -> str:
    """What one worker alone is told."""
    return f"know {' '.join(f'{key} {number}' for key, number in facts.items())} want {want}"


def enquiry(seed: int, names: tuple[str, ...], *, facts: int = 2) -> Item:
    """Each of ``names`` is told ``facts`` numbers, and wants one that one of the others was told.

    The answer is the first worker's: right if its last word is the number that this one wants. A worker that does the
    least writes five words: what it wants, what it is asked for and its number, what it wants and that number.

    Raises:
        BadRequest: there are too few names, or too many facts.
    """
    if len(names) < 2 or facts < 1 or len(names) * facts > len(KEYS):
        raise BadRequest(f"enquiry is for 2 workers and more, who know {len(KEYS)} things at most.")
    draw = random.Random(seed)
    keys = draw.sample(KEYS, len(names) * facts)
    numbers = dict(zip(keys, map(str, draw.sample(range(LOW, HIGH + 1), len(keys))), strict=True))
    known = {name: keys[at * facts : (at + 1) * facts] for at, name in enumerate(names)}
    ring = draw.sample(names, len(names))
    wants = {one: draw.choice(known[other]) for one, other in zip(ring, ring[1:] + ring[:1], strict=True)}
    holder = {key: name for name, own in known.items() for key in own}
    parts = [AnswerPart(key, numbers[key], holder[key]) for key in wants.values()]
    first = numbers[wants[names[0]]]

    def score(answer: str | None) -> Score:
        right = (answer or "").split()[-1:] == [first]
        return Score(float(right), right)

    def guess(draw: random.Random) -> str:
        return str(draw.randint(LOW, HIGH))

    private = {name: told({key: numbers[key] for key in own}, wants[name]) for name, own in known.items()}
    whole = "\n".join([joined(private), PROMPT])
    return Item("enquiry", seed, PROMPT, score, first, guess, str(LOW), parts, private, whole)
