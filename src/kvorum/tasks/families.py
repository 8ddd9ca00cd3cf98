"""The families of items by name, and the making of an item from a seed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.runs.worker import choose_names
from kvorum.tasks.agentsnet import graph_item
from kvorum.tasks.chain import chain
from kvorum.tasks.consensus import agreement
from kvorum.tasks.cover import cover
from kvorum.tasks.enquiry import enquiry
from kvorum.tasks.everyday.family import everyday
from kvorum.tasks.facts import facts
from kvorum.tasks.item import Item
from kvorum.tasks.ladder.family import ladder, team_ladder
from kvorum.tasks.lists import lists
from kvorum.tasks.moved import moved
from kvorum.tasks.problems import problems
from kvorum.tasks.questions import bundle
from kvorum.tasks.topics import topics
from kvorum.wording import check_known

FAMILIES: dict[str, Callable[..., Item]] = {
    "bundle": bundle,
    "lists": lists,
    "cover": cover,
    "enquiry": enquiry,
    "facts": facts,
    "chain": chain,
    "graph": graph_item,
    "agreement": agreement,
    "everyday": everyday,
    "moved": moved,
    "ladder": ladder,
    "team_ladder": team_ladder,
    "problems": problems,
    "topics": topics,
}


def options(family: str) -> dict[str, Json]:
    """The options of a family and their defaults. Raises UnknownName."""
    check_known("task", family, FAMILIES)
    keywords = list(inspect.signature(FAMILIES[family]).parameters.values())[2:]
    return {keyword.name: keyword.default for keyword in keywords}


def make(family: str, seed: int, workers: int | Sequence[str] = 4, **given: Json) -> Item:
    """The item of that family and seed, for workers of these names. Same arguments: the same item.

    Raises:
        UnknownName, BadRequest: no such family, option or value.
    """
    known = options(family)
    for name, value in given.items():
        check_known("option", name, known, owner=f"The task {family}")
        if type(value) is not type(known[name]):
            raise BadRequest(f"{family}.{name} is a {type(known[name]).__name__}, not {value!r}.")
    return FAMILIES[family](seed, tuple(choose_names(workers, 64)), **given)
