"""Small word problems of one step, several in one job: an answer has a line for each, and thoughts take their time.

Each line is credited by itself, so that it can be told when the first right one was there. What a model thinks on the
way to one of them is a sentence or two, so with ten a writer who waits for the last thought waits long.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from kvorum.errors import BadRequest
from kvorum.tasks.everyday import words
from kvorum.tasks.everyday.kind import each, numbered, says
from kvorum.tasks.item import Item
from kvorum.tasks.scoring import Score

MOST = 26
Told = tuple[str, int]


def _many(thing: str) -> str:
    return f"{thing}es" if thing.endswith("x") else f"{thing}s"


def _bought(draw: random.Random, name: str) -> Told:
    first, more, thing = draw.randint(5, 40), draw.randint(3, 30), draw.choice(words.GOODS)
    return f"{name} has {first} {_many(thing)} and buys {more} more. How many are there now?", first + more


def _spent(draw: random.Random, name: str) -> Told:
    spent, left = draw.randint(5, 40), draw.randint(3, 50)
    return f"{name} had {spent + left} euros and spent {spent} of them. How many are left?", left


def _boxes(draw: random.Random, name: str) -> Told:
    boxes, each_holds, thing = draw.randint(3, 9), draw.randint(4, 12), draw.choice(words.GOODS)
    return f"{name} fills {boxes} boxes with {each_holds} {_many(thing)} each. How many is that?", boxes * each_holds


def _shared(draw: random.Random, name: str) -> Told:
    people, share = draw.randint(2, 6), draw.randint(3, 12)
    return f"{name} shares {people * share} euros among {people} people. How many does each get?", share


def _walked(draw: random.Random, name: str) -> Told:
    days, far = draw.randint(3, 8), draw.randint(2, 9)
    return f"{name} walks {far} km a day. How many km is that in {days} days?", days * far


KINDS: tuple[Callable[[random.Random, str], Told], ...] = (_bought, _spent, _boxes, _shared, _walked)


def _told(kind: Callable[[random.Random, str], Told], draw: random.Random) -> Told:
    """A problem whose answer is none of its own numbers, so that to repeat it answers nothing."""
    while True:
        text, right = kind(draw, draw.choice(words.FIRST))
        if not says(text, str(right)):
            return text, right


def problems(seed: int, names: tuple[str, ...], *, count: int = 10) -> Item:
    """``count`` word problems, to be answered one on each line. Raises BadRequest for none or more than 26."""
    if not 1 <= count <= MOST:
        raise BadRequest(f"A job has from 1 to {MOST} problems, not {count}.")
    draw = random.Random(f"problems/{seed}")
    kinds = [KINDS[at % len(KINDS)] for at in range(count)]
    draw.shuffle(kinds)
    told = [_told(kind, draw) for kind in kinds]
    check = each([str(right) for _, right in told])

    def score(answer: str | None) -> Score:
        right = check(answer or "")
        return Score(right, right == 1)

    def guess(draw: random.Random) -> str:
        return numbered([str(draw.randint(3, 80)) for _ in told])

    asked = numbered([text for text, _ in told])
    prompt = f"Solve each problem; answer one on each line with its number.\n{asked}"
    return Item(
        "problems", seed, prompt, score, numbered([str(right) for _, right in told]), guess, numbered(["12"] * count)
    )
