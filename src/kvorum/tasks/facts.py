"""Distributed facts: each worker privately holds what the others need, so nobody can answer without communication."""

from __future__ import annotations

import random

from kvorum.errors import BadRequest, UnknownName
from kvorum.tasks.answers import credit, joined
from kvorum.tasks.item import Item, Part, Score

ASKS = ("recall", "total", "largest")


def facts(seed: int, names: tuple[str, ...], *, ask: str = "recall", digits: int = 2) -> Item:
    """Each of ``names`` holds a secret number of so many digits.

    ``ask``: "recall" (all numbers, credited one by one), "total" (their sum) or "largest" (who holds the largest).
    """
    if ask not in ASKS:
        raise UnknownName(f"facts cannot ask {ask!r}; it can ask: {', '.join(ASKS)}.")
    low, high = 10 ** (digits - 1), 10**digits - 1
    if digits < 1 or high - low + 1 < len(names):
        raise BadRequest(f"There are not enough numbers of {digits} digits for {len(names)} workers.")
    draw = random.Random(seed)
    held = dict(zip(names, draw.sample(range(low, high + 1), len(names)), strict=True))
    who = ", ".join(names)
    if ask == "recall":
        want = "What are all the secret numbers?"
        answers = tuple(Part(name, str(number), name) for name, number in held.items())
    elif ask == "total":
        want = "What is the sum of all the secret numbers?"
        answers = (Part("total", str(sum(held.values()))),)
    else:
        want = "Who holds the largest secret number?"
        answers = (Part("name", max(held, key=held.__getitem__)),)
    form = joined({part.name: "..." for part in answers}) if ask == "recall" else "one number" * (ask == "total")
    prompt = f"Each of {who} holds a secret number that only they know. {want}\nThe final answer has this form: " + (
        form or "one name"
    )
    private = {name: f"the secret number of {name} is {number}." for name, number in held.items()}
    told = "\n".join(f"The secret number of {name} is {number}." for name, number in held.items())

    def score(answer: str | None) -> Score:
        return credit(answer, answers)

    def guess(draw: random.Random) -> str:
        if ask == "largest":
            return draw.choice(names)
        numbers = [draw.randint(low, high) for _ in names]
        if ask == "total":
            return str(sum(numbers))
        return joined({name: str(number) for name, number in zip(names, numbers, strict=True)})

    constant = {"largest": names[0], "total": str((low + high) * len(names) // 2)}.get(ask)
    return Item(
        "facts",
        seed,
        prompt,
        score,
        joined({part.name: part.answer for part in answers}),
        guess,
        constant or joined(dict.fromkeys(names, str(low))),
        answers,
        private,
        f"{told}\n\n{prompt}",
    )
