"""Typed questions about a state, on the engine's loop: each request is let in with the pages that it can come to need.

Its prompts are cut at the same places whatever else is asked, so with packed weights and native kernels its numbers are
the same bits in any company.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from kvorum.api import Engine
from kvorum.harness.decisions.answers import Decisions
from kvorum.harness.decisions.questions import Choice, Question
from kvorum.harness.decisions.scoring import READ, TOGETHER
from kvorum.kv import PagePool, View
from kvorum.programs import adecide
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.engine_thread.client_blocks import ClientBlocks
from kvorum.serve.keys.caller import Caller
from kvorum.serve.metrics import Metrics
from kvorum.serve.request_models.blocks import ViewItem

_FIXED = 64
"""Tokens that the words around a question take at most."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The answers, and how many tokens of kept blocks they are about."""

    decisions: Decisions
    seen: int


class Decider:
    """Asks questions for any number of requests at a time. ``rows``: of a tick, that all requests may have."""

    def __init__(self, engine: Engine, admission: Admission, blocks: ClientBlocks, metrics: Metrics, rows: int) -> None:
        self._engine, self._admission, self._blocks, self._metrics = engine, admission, blocks, metrics
        self._rows = max(1, rows // 4)  # they come in a tick or two and are gone

    async def decide(
        self,
        state: str,
        tokens: int,
        items: Sequence[ViewItem],
        questions: Sequence[Question],
        orders: int,
        caller: Caller,
    ) -> Decided:
        """The answers to ``questions`` about ``state``, of ``tokens`` tokens, or about what ``items`` show.

        Raises:
            ApiError: no such block; no place. BadRequest: a question or state that does not fit into the context.
        """
        began = time.monotonic()
        view = await self._blocks.view(items, caller) if items else View()
        pages = self._pages(tokens, questions, orders)
        ticket = await self._admission.enter(caller.turn, min(len(questions), self._rows), lambda: pages)
        try:
            self._metrics.queued.observe(time.monotonic() - began)
            found = await adecide(self._engine, view if items else state, questions, orders=orders)
            caller.spend(found.ledger.prefill)
            return Decided(found, len(view))
        finally:
            self._admission.leave(ticket)

    def _pages(self, tokens: int, questions: Sequence[Question], orders: int) -> int:
        """Pages of the worst case: the state, one prompt, and as many more as share a tick. A token has a byte or
        more."""
        pool = self._engine.pool
        each = [_pages(question, orders, pool) for question in questions]
        return pool.pages_for(tokens) + 2 + max(each) + min(sum(each), pool.pages_for(TOGETHER) + READ)


def _pages(question: Question, orders: int, pool: PagePool) -> int:
    """Pages of one question's blocks: its words, in each order, and one more for the end of each block."""
    texts = [question.text, *question.labels, *(answer.description for answer in question.answers)]
    listed = 2 if isinstance(question, Choice) and orders > 1 else 1  # forwards and backwards
    words = _FIXED + sum(len(text.encode()) + 4 for text in texts) * listed
    return pool.pages_for(words) + 4 + 2 * listed * len(question.answers)
