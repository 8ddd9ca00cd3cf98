"""The next turn of a conversation, for every route that has conversations: what the model is given, what it may write,
and how what it writes is taken apart into thoughts, words and calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.sampling.grammar import Grammar
from kvorum.serve.asked_tools import AskedTools
from kvorum.serve.engine_thread.generator import Piece, ReplyPart
from kvorum.serve.errors import ApiError
from kvorum.serve.service import Service
from kvorum.serve.thoughts import END, apart
from kvorum.serve.turn_reader import TurnReader


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """``ids``: the conversation in the model's form, up to where it goes on. ``grammar``: what it may write. ``show``:
    special tokens whose text is needed to read it. ``thinks``: the prompt ends where the model thinks."""

    ids: list[int]
    grammar: Grammar | None
    show: frozenset[int]
    thinks: bool
    asked: AskedTools
    service: Service

    def read(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """The pieces of its replies: thoughts are their ``reasoning``, calls their ``calls``.

        A reply that has called something ends with "tool_calls", as OpenAI's do, unless it was told what to call.
        """
        told = apart(pieces, begun=self.thinks)
        return self._with_calls(told) if self.asked.usable and self.asked.choice != "none" else told

    async def _with_calls(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        readers: dict[int, TurnReader] = {}
        async with aclosing(pieces) as told:
            async for piece in told:
                if isinstance(piece, ReplyPart):
                    if piece.index not in readers:
                        form, several = self.service.calls.form, self.asked.parallel
                        readers[piece.index] = TurnReader(form, self.asked.usable, several=several)
                    reader = readers[piece.index]
                    if reader.slow:
                        yield await asyncio.to_thread(self._read, piece, reader)
                    else:
                        yield self._read(piece, reader)
                else:
                    yield piece

    def _read(self, part: ReplyPart, reader: TurnReader) -> ReplyPart:
        words, calls = reader.step(part.text, last=part.finish is not None)
        called = part.finish == "stop" and reader.made and not self.asked.named
        return replace(part, text=words, calls=calls, finish="tool_calls" if called else part.finish)


async def chat_turn(
    service: Service,
    messages: Sequence[Mapping[str, Json]],
    asked: AskedTools,
    *,
    answer: tuple[Grammar, str] | None = None,
    thinking: bool | None = None,
) -> ChatTurn:
    """The turn behind ``messages``, which are in OpenAI's form (roles system, user, assistant and tool).

    ``answer``: what an answer in words is held to, and the field of the request that says so. ``thinking``: whether the
    model is told to think first; None: as its chat template has it.

    Raises:
        ApiError: a call without its result, what no template can hold, a grammar that cannot be compiled, a prompt that
            is too long.
    """
    form = service.calls.form
    try:
        conversation = form.conversation(messages, asked.tools)
    except BadRequest as error:
        raise ApiError(400, str(error), param="messages") from error
    ids = await service.chat(conversation.messages, thinking, **conversation.variables)
    grammar, place = answer or (None, "tools")
    if asked.usable:
        try:
            grammar = await asyncio.to_thread(service.calls.grammar, asked, grammar)
        except BadRequest as error:
            raise ApiError(400, str(error), param="tools") from error
    thinks = service.thinks_already(ids)
    if grammar is not None:
        grammar = grammar.after(END) if thinks else grammar
        await service.prepare(grammar, place)
    return ChatTurn(ids, grammar, form.shown if asked.usable else frozenset(), thinks, asked, service)
