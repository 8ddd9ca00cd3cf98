"""Dependent chains: each step needs the number of the step before. More workers cannot go faster, only check."""

from __future__ import annotations

import random

from kvorum.errors import BadRequest
from kvorum.tasks.answers import credit, joined
from kvorum.tasks.bundle import LETTERS
from kvorum.tasks.item import Item, Part, Score

STEPS = ("plus", "minus", "times")


def chain(seed: int, names: tuple[str, ...], *, steps: int = 4, split: bool = False) -> Item:
    """``steps`` small sums, each of the number before; every one is credited. ``split``: deal them to the workers.

    Numbers stay between 1 and 200. With ``split`` each worker is told its steps alone.
    """
    if not 1 <= steps <= len(LETTERS):
        raise BadRequest(f"A chain has from 1 to {len(LETTERS)} steps, not {steps}.")
    draw = random.Random(seed)
    value = draw.randint(2, 20)
    told, answers, holders = [f"a is {value} plus 1."], [Part("a", str(value + 1))], [names[0]]
    value += 1
    for at in range(1, steps):
        name, before = LETTERS[at], LETTERS[at - 1]
        kind = draw.choice([step for step in STEPS if step != "times" or value <= 66])
        by = draw.randint(2, 3) if kind == "times" else draw.randint(1, max(1, min(20, value - 1)))
        if kind == "minus" and by >= value:
            kind = "plus"
        value = {"plus": value + by, "minus": value - by, "times": value * by}[kind]
        told.append(f"{name} is {before} {kind} {by}.")
        answers.append(Part(name, str(value)))
        holders.append(names[at % len(names)])
    parts = tuple(Part(p.name, p.answer, holder if split else "") for p, holder in zip(answers, holders, strict=True))
    form = joined({part.name: "..." for part in parts})
    ask = f"What are the numbers {', '.join(part.name for part in parts)}?\nThe final answer has this form: {form}"
    whole = "\n".join([*told, ask])
    private: dict[str, str] = {}
    for line, holder in zip(told, holders, strict=True):
        private[holder] = f"{private[holder]} {line}" if holder in private else line

    def score(answer: str | None) -> Score:
        return credit(answer, parts)

    def guess(draw: random.Random) -> str:
        return joined({part.name: str(draw.randint(1, 100)) for part in parts})

    return Item(
        "chain",
        seed,
        f"Each of {', '.join(names)} knows some steps of a chain of sums; each step needs the one before. {ask}"
        if split
        else whole,
        score,
        joined({part.name: part.answer for part in parts}),
        guess,
        joined({part.name: "10" for part in parts}),
        parts,
        private if split else {},
        whole,
    )
