"""Small questions with one short answer, from seeds, and bundles of them.

They are grade-school stories of our own, and of the generators of reasoning-gym. Sizes are for models of 0.1 to 2
billion parameters. reasoning-gym's own scorers are not used: some give credit to an answer that merely contains the
right one.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kvorum.errors import BadRequest, need
from kvorum.jsontypes import JsonObject
from kvorum.tasks.item import Item, item_of_parts
from kvorum.tasks.scoring import AnswerPart, joined
from kvorum.wording import check_known

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES = ("Mia", "Noah", "Lena", "Omar", "Sara", "Ivo", "Tara", "Jonas", "Nina", "Paul")
THINGS = ("apples", "stamps", "marbles", "cards", "shells", "pencils", "coins", "stickers")


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its answer. ``low`` to ``high``: integers among which a blind guess would choose."""

    text: str
    answer: str
    low: int = 0
    high: int = 99


def _shop(draw: random.Random) -> tuple[str, int]:
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    many, price, left = draw.randint(3, 9), draw.randint(2, 9), draw.randint(1, 20)
    told = f"{name} buys {many} {thing} at {price} dollars each and has {left} dollars left."
    return f"{told} How many dollars did {name} have at first?", many * price + left


def _share(draw: random.Random) -> tuple[str, int]:
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    each, friends, kept = draw.randint(2, 9), draw.randint(2, 6), draw.randint(1, 9)
    told = f"{name} has {each * friends + kept} {thing}, keeps {kept} and gives the rest to {friends} friends"
    return f"{told}, the same number to each. How many {thing} does each friend get?", each


def _more(draw: random.Random) -> tuple[str, int]:
    (one, other), thing = draw.sample(NAMES, 2), draw.choice(THINGS)
    first, more = draw.randint(4, 30), draw.randint(2, 20)
    told = f"{one} has {first} {thing}. {other} has {more} more than {one}."
    return f"{told} How many {thing} do they have together?", 2 * first + more


def _walk(draw: random.Random) -> tuple[str, int]:
    name, days, far, rest = draw.choice(NAMES), draw.randint(3, 7), draw.randint(2, 9), draw.randint(1, 2)
    told = f"{name} walks {far} km a day for {days} days but rests on {rest} of them."
    return f"{told} How many km does {name} walk?", (days - rest) * far


def _boxes(draw: random.Random) -> tuple[str, int]:
    thing = draw.choice(THINGS)
    boxes, each, broken = draw.randint(2, 9), draw.randint(3, 9), draw.randint(1, 5)
    told = f"There are {boxes} boxes with {each} {thing} in each. {broken} {thing} are lost."
    return f"{told} How many are left?", boxes * each - broken


def _age(draw: random.Random) -> tuple[str, int]:
    one, other = draw.sample(NAMES, 2)
    age, times, years = draw.randint(3, 12), draw.randint(2, 4), draw.randint(2, 10)
    told = f"{one} is {age} years old and {other} is {times} times as old."
    return f"{told} How old will {other} be in {years} years?", age * times + years


STORIES: tuple[Callable[[random.Random], tuple[str, int]], ...] = (_shop, _share, _more, _walk, _boxes, _age)


def story(seed: int) -> Question:
    """A word problem of two or three steps."""
    draw = random.Random(seed)
    text, answer = draw.choice(STORIES)(draw)
    return Question(text, str(answer), 0, 100)


GYM: dict[str, JsonObject] = tomllib.loads(Path(__file__).with_name("gym.toml").read_text(encoding="utf-8"))
"""Those generators of reasoning-gym that small models can do, with their sizes."""


def gym(name: str, seed: int) -> Question:
    """A question of a reasoning-gym generator.

    Raises:
        UnknownName: none of ``GYM``. MissingExtra: reasoning-gym is not installed.
    """
    check_known("kind of questions", name, ["story", *GYM])
    reasoning_gym = need("reasoning_gym", f"The kind of questions {name!r}", "lab")
    entry = reasoning_gym.create_dataset(name, size=1, seed=seed, **GYM[name])[0]
    answer = str(entry["answer"]).strip()
    whole = answer.lstrip("-").isdecimal()
    high = max(20, 2 * abs(int(answer))) if whole else 99
    return Question(" ".join(entry["question"].split()), answer, 0, high)


def question(source: str, seed: int) -> Question:
    """A question of ``source``: "story", or a name of ``GYM``."""
    return story(seed) if source == "story" else gym(source, seed)


def bundle(seed: int, names: tuple[str, ...], *, parts: int = 4, sources: str = "story") -> Item:
    """``parts`` independent questions, credited one by one, after the five questions of the Hogwild! paper.

    They are taken in turn from ``sources`` ("story", or generators of reasoning-gym, with commas). A team that divides
    the work needs as many ticks as its busiest worker; one that duplicates it gains nothing.
    """
    if not 1 <= parts <= len(LETTERS):
        raise BadRequest(f"A bundle has from 1 to {len(LETTERS)} parts, not {parts}.")
    known = [source.strip() for source in sources.split(",")]
    asked = {LETTERS[at]: question(known[at % len(known)], 1000 * seed + at) for at in range(parts)}
    lines = [f"Answer these {parts} independent questions."]
    lines += [f"{letter}) {found.text}" for letter, found in asked.items()]
    lines += [f"The final answer gives all of them, in this form: {joined(dict.fromkeys(asked, '...'))}"]
    answers = [AnswerPart(letter, found.answer) for letter, found in asked.items()]

    def guess(draw: random.Random, letter: str) -> str:
        return str(draw.randint(asked[letter].low, asked[letter].high))

    return item_of_parts("bundle", seed, "\n".join(lines), answers, guess=guess, constant="10")
