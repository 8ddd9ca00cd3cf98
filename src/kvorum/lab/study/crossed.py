"""Factorial designs in a study file: one entry with ``factors`` stands for an arm of each combination of their levels.

    {program: ladder, factors: {memory: [none, recalled], skill: [none, needed]}}

    bare, needed, recalled, recalled+needed

A factor is a parameter of the program with two levels, the first without something and the second with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject

BARE = "bare"
"""What the arm is called that has all its factors at their first level."""


def crossed(asked: JsonObject) -> Iterator[JsonObject]:
    """The arms that an entry stands for, each called by the factors that it has at their second level; an entry without
    factors is itself.

    Raises:
        BadRequest: a factor has not two levels, or there is a label beside them.
    """
    factors = _factors(asked)
    if not factors:
        yield asked
        return
    if "label" in asked:
        raise BadRequest("An arm with factors has no label; its arms are called by their levels.")
    for chosen in product(*factors.values()):
        given = dict(zip(factors, chosen, strict=True))
        on = [str(level) for name, level in given.items() if level == factors[name][1]]
        yield {**asked, "params": {**_mapping("params", asked), **given}, "label": "+".join(on) or BARE}


def levels_of(asked: JsonObject) -> dict[str, bool]:
    """Of an arm that ``crossed`` made, by factor whether it is at its second level."""
    params = _mapping("params", asked)
    return {name: params[name] == second for name, (_, second) in _factors(asked).items()}


def _factors(asked: JsonObject) -> dict[str, tuple[Json, Json]]:
    found = {}
    for name, levels in _mapping("factors", asked).items():
        if not isinstance(levels, list | tuple) or len(levels) != 2 or levels[0] == levels[1]:
            raise BadRequest(f"The factor {name} has two levels, the first without something and the second with it.")
        found[name] = (levels[0], levels[1])
    return found


def _mapping(key: str, asked: JsonObject) -> JsonObject:
    value = asked.get(key, {})
    if not isinstance(value, Mapping):
        raise BadRequest(f"An arm's {key} must be a mapping, not {value!r}.")
    return value
