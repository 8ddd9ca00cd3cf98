"""Whether what stands under a heading is what the heading promises, as the model judges it, and how often it errs.

The model is asked yes or no by ``decide``. What it says is worth as much as it finds of contradictions that were
planted: sections under the next heading of the same outline, and, written by hand, a paragraph that keeps to a heading
and one that says the opposite.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvorum import Engine
from kvorum.harness.decisions.questions import YesNo

KNOWN = (
    (
        "Arrival by train",
        "The station lies ten minutes on foot from the market. Trains come from the coast every hour.",
        "No railway leads here and none ever did. Whoever wants to come has to drive.",
    ),
    (
        "Where to eat",
        "The inn at the bridge serves trout from the river. A bakery opens at six.",
        "There is no inn and no shop in town. Visitors go hungry until they leave.",
    ),
    (
        "Walks along the river",
        "A flat path follows the water for five miles. Benches stand at every bend.",
        "Nobody can walk by the water, since both banks are fenced off. Stay in the square.",
    ),
    (
        "The old church",
        "The church was built in 1402. Its tower may be climbed on Sundays.",
        "The town never had a church. All of its houses were built last year.",
    ),
    (
        "Things to do with children",
        "The playground has a water pump and a slide. The museum lets children touch the tools.",
        "Children are not allowed anywhere in town. Leave them at home.",
    ),
    (
        "Market days",
        "On Saturdays farmers sell cheese and apples in the square. Stalls are open until noon.",
        "There has been no market for a hundred years. Nothing is sold in the square.",
    ),
    (
        "Staying overnight",
        "Two guest houses have rooms with breakfast. The camp site by the weir is open in summer.",
        "No bed can be had in town. Everybody has to be gone by evening.",
    ),
    (
        "Weather and the best season",
        "May and September are mild and dry. In winter the river often floods the meadows.",
        "Nothing is known of the weather, and the season makes no difference at all.",
    ),
    (
        "Getting around by bicycle",
        "Bicycles can be hired at the mill. Marked routes lead to three villages.",
        "Cycling is forbidden on all roads. There are no bicycles here.",
    ),
    (
        "The history of the bridge",
        "The stone bridge replaced a ferry in 1655. It was widened for carts a century later.",
        "No bridge was ever built here. The river has no crossing for thirty miles.",
    ),
    (
        "Festivals of the year",
        "In June boats with lanterns go down the river. In October the cider is tasted.",
        "The town celebrates nothing. There has never been a feast of any kind.",
    ),
    (
        "Shops and souvenirs",
        "The potter sells blue bowls, and the bookshop has maps of the valley.",
        "There is nothing to buy. The last shop closed long ago and no souvenir is made.",
    ),
)
"""A heading, a paragraph that keeps to it, and one that contradicts it."""

LEAST = 1 / 3
"""A section keeps to its heading where yes has at least this probability. Set on ``KNOWN`` with qwen2.5-coder-1.5b,
which says no too easily: there it calls 2 of the 12 that keep straying, and finds 11 of the 12 that contradict."""


def strays(engine: Engine, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Of each heading and section whether the model says that the section does not keep to it; empty ones do not."""
    found = []
    for heading, section in pairs:
        asked = YesNo(f'Does this text give what its heading promises, "{heading.rstrip(".")}"?', "keeps")
        found.append(not section.strip() or engine.decide(section.strip(), [asked])[0].shares["Yes"] < LEAST)
    return found


def judged(engine: Engine, arms: dict[str, Sequence[tuple[str, str]]], number: int) -> dict[str, dict[str, float]]:
    """By arm the share of sections that stray from their headings; and of what was planted, the share that was found.

    ``planted``: the first arm's sections under the next heading, and the ``number``-th of ``KNOWN`` contradictions;
    ``kept``: of the paragraphs that keep to their heading, the share that was called straying all the same.
    """
    told = {arm: {"stray": share(strays(engine, pairs))} for arm, pairs in arms.items()}
    pairs = next(iter(arms.values()))
    turned = [(heading, section) for (heading, _), (_, section) in zip(pairs, [*pairs[1:], *pairs[:1]], strict=True)]
    heading, kept, against = KNOWN[number % len(KNOWN)]
    known = strays(engine, [(heading, kept), (heading, against)])
    told["planted"] = {"stray": share(strays(engine, turned))}
    told["known contradiction"] = {"stray": float(known[1])}
    told["known to keep"] = {"stray": float(known[0])}
    return told


def share(values: Sequence[bool]) -> float:
    """How many of them are true; 0 of none."""
    return sum(values) / len(values) if values else 0.0
