"""Distributed facts: each worker privately holds what the others need, so nobody can answer without communication."""

from __future__ import annotations

import random

from kvorum.errors import BadRequest, UnknownName
from kvorum.tasks.item import Item, item_of_parts
from kvorum.tasks.scoring import AnswerPart, joined

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
    form, constant = "one number", str(low)
    if ask == "recall":
        want = "What are all the secret numbers?"
        answers = [AnswerPart(name, str(number), name) for name, number in held.items()]
        form = joined(dict.fromkeys(names, "..."))
    elif ask == "total":
        want = "What is the sum of all the secret numbers?"
        answers = [AnswerPart("total", str(sum(held.values())))]
        constant = str((low + high) * len(names) // 2)
    else:
        want = "Who holds the largest secret number?"
        answers = [AnswerPart("name", max(held, key=held.__getitem__))]
        form, constant = "one name", names[0]
    prompt = f"Each of {', '.join(names)} holds a secret number that only they know. {want}\n"
    prompt += f"The final answer has this form: {form}"
    private = {name: f"the secret number of {name} is {number}." for name, number in held.items()}
    whole = "\n".join([*(f"The secret number of {name} is {number}." for name, number in held.items()), "", prompt])

    def guess(draw: random.Random, part: str) -> str:
        if ask == "largest":
            return draw.choice(names)
        return str(sum(draw.randint(low, high) for _ in (names if ask == "total" else [part])))

    return item_of_parts("facts", seed, prompt, answers, guess=guess, constant=constant, private=private, whole=whole)
