"""Words to be named: a list stands in the prompt, and a team names each of its words, the sooner the better.

Nothing has to be known or found out: what counts is only that nobody names what somebody has named. So the share that
is named after so many ticks has a closed bound for a team that sees everything and one for workers that see themselves.
"""

from __future__ import annotations

import random

from kvorum.errors import BadRequest
from kvorum.tasks.item import Item
from kvorum.tasks.scoring import AnswerPart, Score, split

WORDS = split(
    "apple, river, stone, cloud, horse, table, green, paper, music, light, bread, chair, water, sugar, tiger, glass, "
    "money, plant, salt, wheel, north, brick, flame, grape, honey, island, jacket, kettle, lemon, mirror, needle, "
    "orange, pencil, queen, rabbit, silver, tunnel, umbrella, valley, window, yellow, zebra, basket, candle, dragon, "
    "engine, feather, garden"
)
"""Short English words, each a single word."""


def cover(seed: int, names: tuple[str, ...], *, wanted: int = 16) -> Item:
    """``wanted`` of 48 words, given in the prompt, each to be named once.

    Soft score of an answer: the share of the list that it names. What a whole team named is the measure ``written``.

    Raises:
        BadRequest: there are not so many words.
    """
    if not 1 <= wanted <= len(WORDS):
        raise BadRequest(f"cover.wanted is from 1 to {len(WORDS)}, not {wanted}.")
    listed = random.Random(seed).sample(WORDS, wanted)

    def score(answer: str | None) -> Score:
        named = [word for word in listed if word in set((answer or "").lower().replace(",", " ").split())]
        return Score(len(named) / wanted, len(named) == wanted, dict.fromkeys(named, 1.0))

    def guess(draw: random.Random) -> str:
        return " ".join(draw.sample(WORDS, wanted))

    prompt = f"Name each once: {' '.join(listed)}"
    parts = [AnswerPart(word, word) for word in listed]
    constant = " ".join(WORDS[:wanted])
    return Item("cover", seed, prompt, score, " ".join(listed), guess, constant, parts, parts_given=True)
