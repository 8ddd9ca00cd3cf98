"""The conversation: forty turns, a memory of which one entry changes before every question, skills that come and go.

All of it comes from a seed. Each question asks for what the memory says now, so that an answer is right or wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

NAMES = ("Ann", "Bob", "Carla", "Dan", "Eve", "Finn", "Gina", "Hugo", "Iris", "Jack", "Kira", "Leo")
_SKILLS = {
    "tides": "low water, add six hours and twelve minutes for high water, and write the hour with two digits",
    "invoices": "an invoice, add the positions first, then the tax, round to cents, and name the currency",
    "letters": "a letter, begin with the date, greet by name, keep to three short paragraphs, and end politely",
    "recipes": "a recipe, list what is needed first with weights in grams, then the steps in the order of doing",
    "minutes": "minutes, say who was there, then what was decided with who does it until when, and nothing else",
}


def skill_body(name: str) -> str:
    """A procedure of some hundred tokens."""
    words = _SKILLS[name]
    points = [f"{at}. For {words}; this is point {at} of five, and it is always followed." for at in range(1, 6)]
    steps = "\n".join(points)
    return f'<skill name="{name}">\n# How {name} are done\n\n{steps}\n</skill>\n'


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what the memory says now, entry by entry in a fixed order, which skills are on, and what is asked."""

    memory: Sequence[str]
    skills: Sequence[str]
    question: str
    right: str


def make_turns(count: int, seed: int = 0) -> Sequence[Turn]:
    """The turns. Before each one entry of the memory changes, and one skill is switched on or off."""
    draws = random.Random(seed)
    codes = {name: str(draws.randrange(1000, 9999)) for name in NAMES}
    on: list[str] = []
    found = []
    for _ in range(count):
        codes[draws.choice(NAMES)] = str(draws.randrange(1000, 9999))
        name = draws.choice(list(_SKILLS))
        on = [other for other in on if other != name] if name in on else [*on, name]
        asked = draws.choice(NAMES)
        memory = [f"- The code of {name}'s locker is {code}.\n" for name, code in codes.items()]
        question = f"What is the code of {asked}'s locker? Answer with the number alone."
        found.append(Turn(memory, list(on), question, codes[asked]))
    return found
