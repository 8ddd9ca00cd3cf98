"""Everyday tasks as items of the lab: one kind and one seed make an item, told to each program in its own words."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from kvorum.jsontypes import Json
from kvorum.tasks.everyday import judging, reading, rewriting, working
from kvorum.tasks.everyday.kind import Job
from kvorum.tasks.item import Item
from kvorum.tasks.scoring import Score
from kvorum.wording import check_known

KINDS: dict[str, Callable[[random.Random], Job]] = {
    make.__name__: make
    for make in (
        reading.questions,
        reading.invoice,
        reading.contact,
        reading.orders,
        reading.emails,
        reading.summary,
        reading.offers,
        reading.table,
        reading.when,
        rewriting.spanish,
        rewriting.german,
        rewriting.dates,
        rewriting.alphabet,
        rewriting.duplicates,
        rewriting.broken_json,
        rewriting.template,
        rewriting.bullets,
        rewriting.units,
        rewriting.initials,
        judging.reviews,
        judging.spam,
        judging.topics,
        judging.department,
        judging.holds,
        working.sums,
        working.shopping,
        working.steps,
        working.train,
        working.free_hour,
        working.names,
        working.pattern,
        working.query,
        working.fault,
        working.count,
    )
}
"""Each kind of task by name."""

NOTHING = "Decide about what each question shows."
"""The text of decisions whose questions say everything."""


def job(kind: str, seed: int) -> Job:
    """The task of that kind and seed. Raises UnknownName."""
    check_known("kind of everyday task", kind, KINDS)
    return KINDS[kind](random.Random(f"{kind}/{seed}"))


def everyday(seed: int, names: tuple[str, ...], *, kind: str = "") -> Item:
    """An everyday task; the seeds go in turn through the kinds in ``kind``, with commas, or without any through all."""
    kinds = [name.strip() for name in kind.split(",")] if kind else list(KINDS)
    made = job(kinds[seed % len(kinds)], seed)

    def score(answer: str | None) -> Score:
        right = made.check(answer or "")
        return Score(right, right == 1)

    given: dict[str, dict[str, Json]] = {}
    texts = {}
    if made.questions:
        given["ask"] = {"questions": list(made.questions), "documents": {"text": made.text} if made.text else None}
    if made.schema:
        given["fields"], texts["fields"] = {"schema": json.dumps(made.schema)}, made.text
    if made.choices:
        asked = [{"type": "choice", "instructions": words, "choices": list(options)} for words, options in made.choices]
        given["decide"], texts["decide"] = {"questions": asked}, made.text or NOTHING
    return Item(
        "everyday",
        seed,
        made.prompt,
        score,
        made.solution,
        lambda draw: "yes",
        "yes",
        given=given,
        texts=texts,
    )
