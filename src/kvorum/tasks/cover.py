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


def expected_share(workers: int, ticks: int, *, seeing: bool, wanted: int = 16) -> float:
    """The share of the list that oracles are expected to name in so many ticks, a word each: those that see all draw
    evenly from the words that nobody named at an earlier tick (two may take the same one in one tick), those that see
    themselves alone from the words that they have not named."""
    if not seeing:
        return 1 - (1 - min(ticks, wanted) / wanted) ** workers
    chances = [1.0] + [0.0] * wanted  # of so many words named
    for _ in range(ticks):
        after = [0.0] * (wanted + 1)
        for named, chance in enumerate(chances):
            left = wanted - named
            new = [chance] + [0.0] * left  # of so many named in this tick
            for _ in range(workers if left else 0):
                pairs = enumerate(zip(new, [0.0, *new], strict=False))  # it was named already, or is one more
                new = [stay * at / left + more * (left - at + 1) / left for at, (stay, more) in pairs]
            for at, share in enumerate(new):
                after[named + at] += share
        chances = after
    return sum(named * chance for named, chance in enumerate(chances)) / wanted


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
