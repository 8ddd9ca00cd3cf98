"""Bundles: independent questions whose answers are credited one by one, after the five questions of the Hogwild! paper.

A team that divides the work needs as many ticks as its busiest worker; one that duplicates it gains nothing.
"""

from __future__ import annotations

import random

from kvorum.errors import BadRequest
from kvorum.tasks.answers import credit, joined
from kvorum.tasks.item import Item, Part, Score
from kvorum.tasks.questions import question

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def bundle(seed: int, names: tuple[str, ...], *, parts: int = 4, sources: str = "story") -> Item:
    """``parts`` questions, taken in turn from ``sources`` ("story", or generators of reasoning-gym, with commas)."""
    if not 1 <= parts <= len(LETTERS):
        raise BadRequest(f"A bundle has from 1 to {len(LETTERS)} parts, not {parts}.")
    known = [source.strip() for source in sources.split(",")]
    asked = {LETTERS[at]: question(known[at % len(known)], 1000 * seed + at) for at in range(parts)}
    answers = tuple(Part(letter, found.answer) for letter, found in asked.items())
    form = joined(dict.fromkeys(asked, "..."))
    prompt = "\n".join(
        [
            f"Answer these {parts} independent questions.",
            *(f"{letter}) {found.text}" for letter, found in asked.items()),
            f"The final answer gives all of them, in this form: {form}",
        ]
    )

    def score(answer: str | None) -> Score:
        return credit(answer, answers)

    def guess(draw: random.Random) -> str:
        return joined({letter: str(draw.randint(found.low, found.high)) for letter, found in asked.items()})

    return Item(
        "bundle",
        seed,
        prompt,
        score,
        joined({part.name: part.answer for part in answers}),
        guess,
        joined(dict.fromkeys(asked, "10")),
        answers,
    )
