"""Items for typed decisions, from seeds: short texts to be put into one of eight classes.

What is asked is plain data; how a question is put to a model is not known here. Statements that are true of a text or
not are in ``reports``.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

THINGS = ("headphones", "kettle", "lamp", "printer", "bicycle", "camera", "keyboard", "heater")
NAMES = ("Mia", "Omar", "Lena", "Ivo", "Tara", "Jonas", "Nina", "Paul")
PLACES = ("Graz", "Lyon", "Turku", "Porto", "Ghent", "Brno", "Cork", "Bergen")


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """A text, a question about it, the options with what they mean ("": nothing is said), and the right one."""

    state: str
    question: str
    options: Mapping[str, str]
    right: str


class _Class(TypedDict):
    about: str
    texts: list[str]


class _Family(TypedDict):
    question: str
    classes: dict[str, _Class]


@cache
def _families() -> dict[str, _Family]:
    found: dict[str, _Family] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return found


def choice_item(seed: int) -> ChoiceItem:
    """A message to one of eight teams or a headline for one of eight sections; the options stand in a random order."""
    draw = random.Random(seed)
    family = draw.choice(list(_families().values()))
    names = list(family["classes"])
    right = draw.choice(names)
    words = {"name": draw.choice(NAMES), "thing": draw.choice(THINGS), "place": draw.choice(PLACES)}
    state = draw.choice(family["classes"][right]["texts"]).format(n=draw.randint(3, 40), **words)
    draw.shuffle(names)
    return ChoiceItem(state, family["question"], {name: family["classes"][name]["about"] for name in names}, right)
