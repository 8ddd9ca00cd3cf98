"""Dependent chains: each step needs the number of the step before. More workers cannot go faster, only check."""

from __future__ import annotations

import random

from kvorum.errors import BadRequest
from kvorum.tasks.item import Item, item_of_parts
from kvorum.tasks.questions import LETTERS
from kvorum.tasks.scoring import AnswerPart, joined

STEPS = ("plus", "minus", "times")


def chain(seed: int, names: tuple[str, ...], *, steps: int = 4, split: bool = False) -> Item:
    """``steps`` small sums, each of the number before; every one is credited. ``split``: deal them to the workers.

    Numbers stay between 1 and 200. With ``split`` each worker is told its steps alone.
    """
    if not 1 <= steps <= len(LETTERS):
        raise BadRequest(f"A chain has from 1 to {len(LETTERS)} steps, not {steps}.")
    draw = random.Random(seed)
    value = draw.randint(2, 20)
    before, kind, by = str(value), "plus", 1
    lines: list[str] = []
    parts: list[AnswerPart] = []
    for at, name in enumerate(LETTERS[:steps]):
        if at:
            kind = draw.choice([step for step in STEPS if step != "times" or value <= 66])
            by = draw.randint(2, 3) if kind == "times" else draw.randint(1, max(1, min(20, value - 1)))
            kind = "plus" if kind == "minus" and by >= value else kind
        value = {"plus": value + by, "minus": value - by, "times": value * by}[kind]
        lines.append(f"{name} is {before} {kind} {by}.")
        parts.append(AnswerPart(name, str(value), names[at % len(names)] if split else ""))
        before = name
    known = [part.name for part in parts]
    form = joined(dict.fromkeys(known, "..."))
    ask = f"What are the numbers {', '.join(known)}?\nThe final answer has this form: {form}"
    whole = prompt = "\n".join([*lines, ask])
    private: dict[str, str] = {}
    if split:
        team = ", ".join(names)
        prompt = f"Each of {team} knows some steps of a chain of sums; each step needs the one before. {ask}"
        private = {name: " ".join(lines[at :: len(names)]) for at, name in enumerate(names[:steps])}

    def guess(draw: random.Random, name: str) -> str:
        return str(draw.randint(1, 100))

    return item_of_parts("chain", seed, prompt, parts, guess=guess, constant="10", private=private, whole=whole)
