"""A conversation that outgrows the context and whose client asks for ``truncation: auto``: its oldest turns go.

A turn is a user's message with all that follows it, so a call is never parted from its result. What stands before the
first one (the instructions) and the last turn always stay; where these alone are too long, that is refused as ever.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.responses import Response

from kvorum.jsontypes import JsonObject
from kvorum.serve.api.chat_turn import ChatTurn
from kvorum.serve.errors import ApiError
from kvorum.serve.service import Service

Make = Callable[[Sequence[JsonObject]], Awaitable[ChatTurn]]
"""The turn behind some messages."""
_PROMPT_SHARE = 0.75
"""Of the context, that a prompt takes at most where nobody says how long the reply may be."""


async def fitting_turn(
    service: Service, messages: Sequence[JsonObject], tokens: int | None, make: Make
) -> tuple[ChatTurn, int]:
    """The turn behind as many of the latest messages as leave room for ``tokens``, and how many were left out.

    Raises ApiError where not even the last turn fits.
    """
    starts = [at for at, message in enumerate(messages) if message.get("role") == "user"] or [0]
    head = messages[: starts[0]]
    first, last, found = 0, len(starts) - 1, None
    while first <= last:  # the fewer messages, the fewer tokens
        at = (first + last) // 2 if found is not None or first else 0  # mostly all fit
        try:
            turn = await make([*head, *messages[starts[at] :]])
        except ApiError as error:
            if error.code != "context_length_exceeded" or at == len(starts) - 1:
                raise
            first = at + 1
            continue
        if fits(service, len(turn.ids), tokens):
            found, last = (turn, starts[at] - starts[0]), at - 1
        elif at == len(starts) - 1:
            return turn, starts[at] - starts[0]  # which is refused with its numbers when it is to be computed
        else:
            first = at + 1
    assert found is not None
    return found


def fits(service: Service, prompt: int, tokens: int | None) -> bool:
    """Whether a prompt of so many tokens leaves room for ``tokens`` of reply, or for a fair one."""
    room = _room(service)
    most = int(room * _PROMPT_SHARE) if tokens is None else room - tokens
    return prompt <= min(most, service.settings.limits.prompt_tokens)


def reply_room(service: Service, prompt: int) -> int:
    """How many tokens a reply may have that says nothing of it, and that has to fit."""
    return max(1, min(service.reply_tokens(prompt), _room(service) - prompt))


def _room(service: Service) -> int:
    """How many tokens prompt and reply may have together; pages that are not full take the rest of the context."""
    return service.context - 2 * service.engine.pool.page_size


def say_how_full(reply: Response, service: Service, prompt: int, dropped: int = 0) -> Response:
    """Put on a reply how many tokens its context has, how many are left behind the prompt, and what was left out."""
    reply.headers["x-kvorum-context"] = str(service.context)
    reply.headers["x-kvorum-context-left"] = str(max(0, service.context - prompt))
    if dropped:
        reply.headers["x-kvorum-dropped-messages"] = str(dropped)
    return reply
