"""A speaker whose workers may call tools before they say what they are asked for.

A worker that calls reads the results as its next turn and speaks again, while those who are done wait. Calls are told
in the plain form (``call_form``), for all models alike, for results are a user's words in a worker's thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from kvorum.harness.speaker import Quote, Speaker, Turn, TurnReply
from kvorum.harness.tools.approval import call_approved
from kvorum.harness.tools.call import Outcome
from kvorum.harness.tools.call_form import PLAIN, CallForm
from kvorum.harness.tools.call_reader import calls_in
from kvorum.harness.tools.tool import Tool
from kvorum.runs.run import Run

SHOWN = 400
"""Characters of arguments and results that a note of the trace shows; whole they stand elsewhere in it."""

More = Callable[[str, str, str, str], Awaitable[Sequence[str | Quote]]]


class CallingSpeaker:
    """A ``Speaker`` that lets ``speaker`` speak, and answers calls of ``tools``, by worker.

    Args:
        calls: the most of a worker's calls before it must say what it is asked for. seconds, chars: of a call's result.
            more: what else a worker reads behind the result of a call of its own: given its name, the tool's, the
            arguments and the status.
    """

    def __init__(
        self,
        run: Run,
        speaker: Speaker,
        tools: Mapping[str, Sequence[Tool]],
        *,
        calls: int = 4,
        seconds: float = 60.0,
        chars: int = 4000,
        more: More | None = None,
    ) -> None:
        self._run, self._speaker, self._tools = run, speaker, tools
        self._calls, self._seconds, self._chars, self._more = calls, seconds, chars, more
        self._form = CallForm(False, PLAIN, run.engine.tokenizer, run.engine.grammars)
        self._numbers = itertools.count(1)
        for worker in run.workers:
            if tools.get(worker.name):
                worker.show(self._form.shown)

    def rules(self, name: str, rules: str) -> str:
        """The rules of a worker with its tools told in them."""
        tools = self._tools.get(name, ())
        talk = self._form.conversation([{"role": "system", "content": rules}], tools, whole=False) if tools else None
        return rules if talk is None else str(talk.messages[0]["content"])

    async def __call__(self, turns: Mapping[str, Turn]) -> dict[str, TurnReply]:
        said: dict[str, TurnReply] = {}
        left = dict.fromkeys(turns, self._calls)
        ticks = dict.fromkeys(turns, 0)
        while turns:
            replies = await self._speaker({name: self._held(name, turn, left[name]) for name, turn in turns.items()})
            following: dict[str, Turn] = {}
            for name, reply in replies.items():
                turn = turns[name]
                ticks[name] += reply.ticks
                asked = self._asked(name, reply)[: left[name]]
                rest = None if turn.ticks is None else turn.ticks - reply.ticks
                if not asked or (rest is not None and rest <= 0):
                    said[name] = replace(reply, ticks=ticks[name])
                    continue
                left[name] -= len(asked)
                following[name] = replace(turn, parts=await self._answer(name, asked), system=None, ticks=rest)
            turns = following
        return said

    def _held(self, name: str, turn: Turn, left: int) -> Turn:
        """The turn with a grammar that has calls in it, as long as some are left."""
        tools = self._tools.get(name, ())
        if not tools or not left:
            return turn
        return replace(turn, grammar=self._form.grammar(tools, "auto", answer=turn.grammar))

    def _asked(self, name: str, reply: TurnReply) -> Sequence[tuple[str, str, str, bool]]:
        tools = self._tools.get(name, ())
        if not tools or reply.end in ("stopped", "left", "late"):
            return ()
        reader = self._form.reader(lambda: f"call_{next(self._numbers)}", tools)
        return calls_in(reader.all(reply.text))

    async def _answer(self, name: str, asked: Sequence[tuple[str, str, str, bool]]) -> list[str | Quote]:
        """Call what is asked for, one after the other; the results as what the worker is told next."""
        parts: list[str | Quote] = []
        for _, tool, arguments, whole in asked:
            outcome = Outcome("error", "error: the call was not written to its end")
            if whole:
                tools = self._tools[name]
                outcome = await call_approved(
                    self._run, tools, tool, arguments, seconds=self._seconds, chars=self._chars
                )
            self._run.note(
                "tool",
                worker=name,
                tool=tool,
                status=outcome.status,
                arguments=arguments[:SHOWN],
                result=outcome.text[:SHOWN],
            )
            parts += ["\n" if parts else "", "<tool_response>\n", Quote(outcome.text), "\n</tool_response>"]
            if self._more is not None:
                parts += await self._more(name, tool, arguments, outcome.status)
        return parts
