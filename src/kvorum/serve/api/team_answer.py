"""A team's answer in a form that the request asks for, or with its tools: the team thinks freely, and what it found is
written down once more, by plain decoding under the grammar."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from kvorum.serve.engine_thread.generator import Piece, ReplyPart, Usage

_FOUND = "\n\nA team has worked on this and found:\n{}\n\nGive the answer now, in the form that is asked for."
_NOTES = "\n\nA team has worked on this. Its last notes:\n{}\n\nGive the answer now, in the form that is asked for."
_KEPT = 4000
"""Characters of the notes of a team that has found nothing."""


async def written_down(
    team: AsyncGenerator[Piece, None], last: Callable[[str], Awaitable[AsyncGenerator[Piece, None]]]
) -> AsyncGenerator[Piece, None]:
    """What the team writes, and its answer in its form; the usage is that of both.

    ``last``: the pieces of the reply to the conversation, with words added to the user's last.
    """
    found, notes, usage = "", "", Usage()
    async with aclosing(team):
        async for piece in team:
            if isinstance(piece, Usage):
                usage = piece
            else:
                found, notes = found + piece.text, (notes + piece.reasoning)[-_KEPT:]
                yield replace(piece, text="", finish=None)
    words = _FOUND.format(found.strip()) if found.strip() else _NOTES.format(notes)
    async with aclosing(await last(words)) as answer:
        async for piece in answer:
            if isinstance(piece, ReplyPart):
                yield piece
            else:
                usage.prompt += piece.prompt
                usage.completion += piece.completion
                usage.cached += piece.cached
                usage.ledger.add(piece.ledger)
    yield usage


def shared_tokens(tokens: int | None) -> tuple[int | None, int | None]:
    """Of the tokens that a request allows, those of the team's thoughts and those of the answer: half each."""
    return (None, None) if tokens is None else (max(1, tokens - tokens // 2), max(1, tokens // 2))
