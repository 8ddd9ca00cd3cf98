"""Two reports, one behind the other, and a question of the second: what a text is worth that was read elsewhere."""

from __future__ import annotations

from itertools import count

from kvorum.tasks.item import Item
from kvorum.tasks.reports import report
from kvorum.tasks.scoring import Score

TOKENS = 12
"""The most tokens of an answer, which is a name or a number."""
BEGINS = "The answer is:"
RULES = "Answer from the text above alone, with nothing but the name or the number."


def moved(seed: int, names: tuple[str, ...], *, places: int = 2) -> Item:
    """A fact of a report of so many places, in front of which stands another one of other places."""
    told = report(seed, places)
    fact = told.facts[seed % len(told.facts)]
    towns = {paragraph.split(".")[0] for paragraph in told.text.split("\n\n")[2:-1]}
    others = (report(1_000_000 + 1000 * seed + draw, places) for draw in count())
    other = next(one for one in others if not any(town in one.text for town in towns))
    documents = {"first": other.text, "second": told.text}

    def score(answer: str | None) -> Score:
        right = fact.answer.lower() in (answer or "").replace(",", "").lower()
        return Score(float(right), right)

    whole = "\n\n".join([*documents.values(), f"{RULES}\n{fact.question}"])
    return Item(
        "moved",
        seed,
        whole,
        score,
        fact.answer,
        lambda draw: str(draw.randrange(9_000, 60_000)),
        "yes",
        given={
            "patch": {"documents": documents, "tokens": TOKENS, "rules": RULES, "begins": BEGINS},
            "ask": {"documents": documents, "questions": [fact.question], "tokens": TOKENS, "rules": RULES},
        },
        texts={"patch": fact.question},
    )
