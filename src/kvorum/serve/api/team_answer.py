"""A team's answer in a form that the request asks for: the team thinks freely, and what it found is written down once
more, by plain decoding under the grammar."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from kvorum.sampling.grammar import Grammar
from kvorum.serve.api.decode_request import decode_request
from kvorum.serve.engine_thread.generator import Piece, ReplyPart, Usage
from kvorum.serve.request_models.completions import CompletionBase, Extra
from kvorum.serve.service import Service

_FOUND = "\n\nA team has worked on this and found:\n{}\n\nGive the answer now, in the form that is asked for."
_NOTES = "\n\nA team has worked on this. Its last notes:\n{}\n\nGive the answer now, in the form that is asked for."
_KEPT = 4000
"""Characters of the notes of a team that has found nothing."""


@dataclass(frozen=True, slots=True)
class AnswerInForm:
    """How a team's answer is to be written down.

    ``encode``: the ids of the conversation, with words added to the user's last. ``tokens`` None: as many as a reply
    has that says nothing of it.
    """

    form: CompletionBase
    grammar: Grammar
    tokens: int | None
    encode: Callable[[str], Awaitable[list[int]]]

    async def pieces(
        self, service: Service, team: AsyncGenerator[Piece, None], client: str
    ) -> AsyncGenerator[Piece, None]:
        """What the team writes, and its answer in its form; the usage is that of both."""
        found, notes, usage = "", "", Usage()
        async with aclosing(team):
            async for piece in team:
                if isinstance(piece, Usage):
                    usage = piece
                else:
                    found, notes = found + piece.text, (notes + piece.reasoning)[-_KEPT:]
                    yield replace(piece, text="", finish=None)
        ids = await self.encode(_FOUND.format(found.strip()) if found.strip() else _NOTES.format(notes))
        tokens = self.tokens or service.reply_tokens(len(ids))
        plain = self.form.model_copy(update={"kvorum": Extra()})
        ask = decode_request(service, plain, [ids], tokens, None, grammar=self.grammar)
        async with aclosing(service.pieces(ask, client)) as answer:
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
