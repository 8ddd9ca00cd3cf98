"""Responses that are made while nobody waits (``background``). Their events are kept, to be heard by who comes later.

They take their turn, share ticks and are counted like any other; a server that stops gives them as long as replies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from kvorum.serve.api.event_stream import unless_gone
from kvorum.serve.api.responses.reply import LiveResponse, stream
from kvorum.serve.engine_thread.generator import Piece
from kvorum.serve.errors import ApiError
from kvorum.serve.responding import Told
from kvorum.serve.server import Server

_KEPT = 64
"""Responses that are over whose events can still be heard."""


async def begin(server: Server, model: str, live: LiveResponse, pieces: AsyncGenerator[Piece, None]) -> Told:
    """Have it made from now on, and return what is told of it once it is stored as queued. Raises StoreError."""
    shared = server.shared
    told = shared.told[live.id] = Told(live.owner)
    begun = asyncio.Event()

    async def make() -> None:
        try:
            async for event in stream(live, pieces, lambda: None):
                told.add(event)
                begun.set()
        finally:
            await pieces.aclose()

    async def life() -> None:
        try:
            await unless_gone(_nobody, shared.ended, make())
        except ApiError:
            pass  # the server ends; the response is found unfinished, and said to have failed
        finally:
            told.end()
            begun.set()
            shared.responding.pop(live.id, None)
            shared.replies -= 1
            server.models.release(model)
            over = [number for number, one in shared.told.items() if one.over]
            for number in over[:-_KEPT]:
                del shared.told[number]

    await server.models.hold(model)
    shared.responding[live.id] = live.state
    shared.replies += 1
    task = asyncio.create_task(life())
    await begun.wait()
    if told.empty:
        await task
    return told


async def _nobody() -> dict[str, str]:
    """A client that does not go away, since there is none."""
    await asyncio.Event().wait()
    return {}
