"""Responses that are being made, so that a request may end another one's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from kvorum.jsontypes import Json


@dataclass(slots=True, eq=False)
class Responding:
    """One of them: ``stop`` says that it is to end, ``over`` that it has, with ``body`` as its object.

    ``owner``: whose it is.
    """

    owner: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    body: dict[str, Json] = field(default_factory=dict)
