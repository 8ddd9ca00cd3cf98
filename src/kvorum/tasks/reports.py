"""Reports made from seeds, of as many places as wanted, with what one can ask of them: questions, fields, statements.

One text for measuring many questions of one text, forms filled from it, and decisions about it, with right answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from kvorum.tasks.everyday import words

REPAIRS = (
    "the roof",
    "the lifts",
    "the heating",
    "the main door",
    "the drains",
    "the windows",
    "the lamps",
)
EVENTS = ("a chess night", "a book fair", "a puppet play", "a poetry hour", "a coding club", "a repair day", "a quiz")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a report says once.

    It is asked for by a ``question`` with its ``answer``, is the field ``key`` of a form, a ``whole`` number or text,
    and stands in a ``statement`` that is true and a ``denial`` that is not.
    """

    key: str
    question: str
    answer: str
    whole: bool
    statement: str
    denial: str


@dataclass(frozen=True, slots=True)
class Report:
    """The text, some 90 tokens for each place, and its facts, four for each place."""

    text: str
    facts: tuple[Fact, ...]

    def chosen(self, count: int) -> list[Fact]:
        """That many of the facts, spread over the whole text and over their kinds."""
        step = len(self.facts) / count
        return [self.facts[int(at * step) // 4 * 4 + at % 4] for at in range(count)]


def report(seed: int, places: int = 9) -> Report:
    """A report of so many places, at most as many as there are towns."""
    draw = random.Random(f"report/{seed}")
    towns = draw.sample(words.TOWNS, places)
    told = [_place(draw, town) for town in towns]
    opening = (
        f"Report of the library board for the year {draw.randint(2019, 2026)}\n\nThe board met in {towns[0]}. The "
        "minutes of the last meeting were approved, and the leads of the branches reported one after another."
    )
    closing = "The chair thanked everybody and closed the meeting. The next one will be announced by letter."
    text = "\n\n".join([opening, *(paragraph for paragraph, _ in told), closing])
    return Report(text, tuple(fact for _, facts in told for fact in facts))


def _place(draw: random.Random, town: str) -> tuple[str, list[Fact]]:
    lead = f"{draw.choice(words.FIRST)} {draw.choice(words.LAST)}"
    visitors, loans, hours = draw.randrange(9_000, 60_000), draw.randrange(15_000, 99_000), draw.randrange(28, 56)
    repair, cost, event = draw.choice(REPAIRS), draw.randrange(2_000, 40_000), draw.choice(EVENTS)
    guests, change = draw.randrange(20, 480), draw.choice(("rose", "fell"))
    paragraph = (
        f"{town}. {lead} reported {visitors} visitors; the number {change} by {draw.randint(2, 14)} percent against "
        f"the year before. The branch lent {loans} items and was open for {hours} hours a week. The largest repair was "
        f"that of {repair}, which cost {cost} crowns and was finished in time. Of the events, {event} drew the most "
        f"guests, {guests} in all, and will be held again. {lead.split()[0]} asked for one more colleague on Saturdays."
    )
    key = town.lower().replace(" ", "_")

    def number(what: str, value: int, question: str, says: Callable[[int], str]) -> Fact:
        return Fact(f"{key}_{what}", question, str(value), True, says(value), says(value + draw.randint(2, 9)))

    other = draw.choice([name for name in words.LAST if name != lead.split()[1]])
    facts = [
        Fact(
            f"{key}_lead",
            f"Who leads the branch in {town}?",
            lead,
            False,
            f"The branch in {town} is led by {lead}.",
            f"The branch in {town} is led by {lead.split()[0]} {other}.",
        ),
        number(
            "visitors",
            visitors,
            f"How many visitors did {town} report?",
            lambda value: f"{town} reported {value} visitors.",
        ),
        number(
            "repair_cost",
            cost,
            f"What did the repair of {repair} in {town} cost, in crowns?",
            lambda value: f"The repair of {repair} in {town} cost {value} crowns.",
        ),
        number(
            "hours",
            hours,
            f"For how many hours a week was {town} open?",
            lambda value: f"{town} was open for {value} hours a week.",
        ),
    ]
    return paragraph, facts
