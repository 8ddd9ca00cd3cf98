"""Responses that are being made, so that a request may end another one's, or add to what it is asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from kvorum.jsontypes import Json


@dataclass(slots=True, eq=False)
class Responding:
    """One of them: ``stop`` says that it is to end, ``over`` that it has, with ``body`` as its object.

    ``owner``: whose it is. ``run``: the run of the program that makes it, "" for the model's own.
    """

    owner: str
    run: str = ""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    body: dict[str, Json] = field(default_factory=dict)
