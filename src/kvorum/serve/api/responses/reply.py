"""A response while it is made: its object, the events that tell of it, and what is stored of it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from kvorum.jsontypes import Json, JsonObject
from kvorum.runs.program import Program
from kvorum.serve.api.event_stream import one_line
from kvorum.serve.api.responses.forms import ResponseForm
from kvorum.serve.api.responses.output import ResponseOutput
from kvorum.serve.engine_thread.generator import Piece, ReplyPart, Usage
from kvorum.serve.errors import as_api_error
from kvorum.serve.responding import Responding
from kvorum.store.events import as_json
from kvorum.store.responses import ResponseStore, StoredResponse


@dataclass(slots=True, eq=False)
class LiveResponse:
    """A response that is being made.

    ``ids``: of its prompt, and then of what is written. ``program``: that makes it, if one does. ``state``: by which
    another request may end it or add to it. ``owner``: whose it is.
    """

    form: ResponseForm
    input: list[JsonObject]
    ids: list[int]
    program: Program | None
    store: ResponseStore
    ends: frozenset[int]
    owner: str
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(24)}")
    created: int = field(default_factory=lambda: int(time.time()))
    state: Responding = field(init=False)
    usage: Usage | None = None
    status: str = "in_progress"
    why: str | None = None
    error: JsonObject | None = None
    output: ResponseOutput = field(init=False)

    def __post_init__(self) -> None:
        beside = self.program is not None and self.program.speaker is not None
        self.output = ResponseOutput(self.program is not None and not beside, beside=beside)
        self.state = Responding(self.owner)
        if self.form.background:
            self.status = "queued"

    def body(self) -> dict[str, Json]:
        """The object as it is now."""
        form = self.form
        choice: Json = form.tool_choice if isinstance(form.tool_choice, str) else "auto"
        if form.tool_choice is not None and not isinstance(form.tool_choice, str):
            choice = form.tool_choice.model_dump(exclude_none=True)
        kind = form.text.format.model_dump(by_alias=True, exclude_none=True)
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": self.status,
            "background": form.background,
            "error": self.error,
            "incomplete_details": None if self.why is None else {"reason": self.why},
            "instructions": form.instructions,
            "max_output_tokens": form.max_output_tokens,
            "metadata": form.metadata,
            "model": form.model,
            "output": [dict(item) for item in self.output.items],
            "parallel_tool_calls": form.parallel_tool_calls,
            "previous_response_id": form.previous_response_id,
            "reasoning": {"effort": form.reasoning.effort, "summary": None},
            "store": form.store,
            "temperature": 1.0 if form.temperature is None else form.temperature,
            "text": {"format": kind},
            "tool_choice": choice,
            "tools": [
                {"strict": True, "description": None, "parameters": None, **tool.model_dump(exclude_none=True)}
                for tool in form.tools or ()
            ],
            "top_p": 1.0 if form.top_p is None else form.top_p,
            "truncation": form.truncation,
            "usage": None if self.usage is None else _usage(self.usage),
            "user": form.user,
        }

    async def keep(self) -> None:
        """Store it as it is now, unless it is not to be stored. Raises StoreError."""
        if self.form.store and not self.state.deleted:
            ids = [] if self.program is not None else self.ids
            await asyncio.to_thread(
                self.store.put, StoredResponse(self.id, self.body(), self.input, list(ids), self.owner)
            )

    async def events(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[dict[str, Json], None]:
        """Each event of the response, from its creation to its end. It is stored before the last one is told."""
        try:
            async with aclosing(pieces):
                await self.keep()
                yield {"type": "response.created", "response": self.body()}
                if self.status == "queued":
                    yield {"type": "response.queued", "response": self.body()}
                else:
                    yield {"type": "response.in_progress", "response": self.body()}
                finish = None
                async for piece in self.state.until_stopped(pieces):
                    if self.status == "queued":
                        self.status = "in_progress"
                        await self.keep()
                        yield {"type": "response.in_progress", "response": self.body()}
                    if isinstance(piece, Usage):
                        self.usage = piece
                    else:
                        finish = piece.finish or finish
                        self._remember(piece)
                        for event in self.output.take(piece):
                            yield event
                if self.state.stopped() and self.usage is None:
                    self.status = "cancelled"
            whole = finish is not None and finish != "length" and self.status != "cancelled"
            for event in self.output.end(whole):
                yield event
            if self.status != "cancelled":
                self.status, self.why = ("completed", None) if whole else ("incomplete", "max_output_tokens")
            await self.keep()
            name = "completed" if self.status == "completed" else "incomplete"
            yield {"type": f"response.{name}", "response": self.body()}
        except GeneratorExit:  # the client went away
            self.status = "cancelled"
            raise
        except Exception as error:
            refused = as_api_error(error)
            self.status, self.error = "failed", {"code": refused.code or "server_error", "message": refused.message}
            raise
        finally:
            if self.status in ("failed", "cancelled"):
                with suppress(Exception):
                    await asyncio.shield(self.keep())
            self.state.body = self.body()
            self.state.over.set()

    def _remember(self, part: ReplyPart) -> None:
        """The tokens of a reply; the mark of its end is no part of it."""
        self.ids += [token.id for token in part.tokens if token.id not in self.ends]


async def whole(live: LiveResponse, pieces: AsyncGenerator[Piece, None]) -> dict[str, Json]:
    """The finished object."""
    async with aclosing(live.events(pieces)) as events:
        async for _ in events:
            pass
    return live.body()


async def stream(
    live: LiveResponse, pieces: AsyncGenerator[Piece, None], over: Callable[[], None]
) -> AsyncGenerator[str, None]:
    """The events as they are sent, each with its number; ``over`` is called at the end."""
    number = 0
    try:
        async with aclosing(live.events(pieces)) as events:
            async for event in events:
                yield _sent({**event, "sequence_number": number})
                number += 1
    except GeneratorExit:
        raise
    except Exception as error:
        if not number:
            raise
        refused = as_api_error(error)
        told: dict[str, Json] = {"type": "error", "code": refused.code or refused.kind, "message": refused.message}
        yield _sent({"type": "response.failed", "response": live.body(), "sequence_number": number})
        yield _sent({**told, "param": refused.param, "sequence_number": number + 1})
    finally:
        over()


def _sent(event: JsonObject) -> str:
    return f"event: {event['type']}\ndata: {one_line(as_json(event))}\n\n"


def _usage(usage: Usage) -> JsonObject:
    extra: dict[str, Json] = {} if usage.run is None else {"run": usage.run}
    if usage.dropped:
        extra["dropped_messages"] = usage.dropped
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.completion,
        **({"kvorum": extra} if extra else {}),
    }
