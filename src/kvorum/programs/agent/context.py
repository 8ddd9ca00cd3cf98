"""What an agent sees: its prompt, its turns and the results of its calls, of which the oldest leave when it is full.

    [ prompt ][ turn 1 ][ result 1 ][ turn 2 ][ result 2 ] ...

Each result stands in a block of its own, so that it can go and its pages return. What stands behind it keeps what it
read ("hidden"), unless the mode is "reencode".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from kvorum.engine.row import Cost, Row
from kvorum.harness.live_text import Live, Mode, called
from kvorum.harness.shared_text import quoted_ids
from kvorum.kv import Block, Span, View
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker

STUB = "[this result was removed to make room]"
"""What stands in the place of a result that has gone."""


@dataclass(frozen=True, slots=True)
class SeenResult:
    """A result in the view: of which ``tool``, its tokens in the log, and what stands in its place once it is gone."""

    tool: str
    lo: int
    hi: int
    stub: Span


class Context:
    """The text that one worker writes and reads. ``base``: what stands before it.

    ``most``: so many tokens may be live at once; None: as many as model and cache hold.
    """

    def __init__(self, run: Run, worker: Worker, base: View, *, mode: Mode, most: int | None) -> None:
        self._run, self._worker, self._mode, self._most = run, worker, mode, most
        self._live = Live(run, worker.name, base)
        self._results: list[SeenResult] = []
        self._stub = quoted_ids(run, STUB)
        worker.view = self._live.view

    @property
    def tokens(self) -> int:
        """Live tokens, those that are pending included."""
        return self._live.tokens

    def feed(self, ids: Sequence[int]) -> None:
        """Put known tokens behind what is pending."""
        self._worker.feed(ids)
        self._live.log += ids
        self._live.pending = len(self._worker.pending)

    def wrote(self, count: int, *, ended: bool) -> None:
        """Take in the last ``count`` tokens of the worker's ids. ``ended``: the last is an end token, which the
        template writes itself."""
        live, worker = self._live, self._worker
        ids = worker.ids[len(worker.ids) - count :] if count else []
        if ended and ids:
            ids = ids[:-1]
            worker.pending, worker.picked = worker.pending[:-1], max(0, worker.picked - 1)
        live.log += ids
        live.pending = len(worker.pending)

    def put(self, block: Block, at: int) -> None:
        """Let a block stand at a position before the text, from where all that follows moves up by its length."""
        live = self._live
        head, _, tail = live.view.split(at, at)
        live.view, live.base = View(*head, Span(block, 0, len(block)), *tail), live.base + len(block)
        self._worker.view = live.view

    async def read(self, pieces: Sequence[str], results: Sequence[tuple[str, str]]) -> None:
        """Take in results, (tool, text), with ``pieces`` of the template around them; the last token stays pending."""
        run, worker = self._run, self._worker
        for piece, (tool, text) in zip(pieces, results, strict=False):
            await self._append(run.encode(piece))
            self._live.open_block()
            worker.view = self._live.view
            start = len(self._live.log)
            stub = await self._encode_stub()
            await self._append(quoted_ids(run, inside_string(text) if piece.endswith('"') else text))
            self._results.append(SeenResult(tool, start, len(self._live.log), stub))
            self._live.open_block()
            worker.view = self._live.view
        ids = run.encode(pieces[-1])
        await self._append(ids[:-1])
        self.feed(ids[-1:])

    async def _encode_stub(self) -> Span:
        """What will stand in the place of the result that comes next, encoded there now: later there is no room."""
        await self.make_room(len(self._stub))
        view = self._live.view
        block = self._run.block("removed")
        await self._run.prefill(View(*view.fork(len(view), block).items), self._stub)
        return Span(block.seal(), 0, len(self._stub))

    async def _append(self, ids: Sequence[int]) -> None:
        """Bring what is pending and ``ids`` into the cache, in parts; room is made where there is none."""
        run, worker, live = self._run, self._worker, self._live
        waiting = [*worker.pending, *ids]
        live.log += ids
        worker.pending, picked, worker.picked = [], worker.picked, 0
        live.pending = 0
        chunk = run.engine.prefill_chunk
        for start in range(0, len(waiting), chunk):
            part = waiting[start : start + chunk]
            await self.make_room(len(part), logged=len(live.log) - (len(waiting) - start))
            await run.forward([Row(worker.view, ids=part)], [Cost(picked)])
            picked = 0

    async def make_room(self, tokens: int, *, logged: int | None = None) -> None:
        """Take the oldest results out of the view until ``tokens`` more fit, or none is left to take.

        ``logged``: how far the log is in the cache; results behind that stay. Where there is no room to encode again
        what follows one, it moves up; the note tells the mode.
        """
        run, live = self._run, self._live
        whole = len(live.log) if logged is None else logged
        while self._mode != "none" and self._results and self._lacks(tokens):
            oldest = self._results[0]
            if oldest.hi > whole:
                return
            self._results.pop(0)
            behind = len(live.log) - oldest.hi + 4 * run.engine.pool.page_size
            again = self._mode == "reencode" and behind <= run.engine.pool.free_for(behind)
            mode: Mode = "splice" if self._mode == "reencode" and not again else self._mode
            for cut in await live.prune([(oldest.lo, oldest.hi)], mode, self._stub, keep=False, encoded=oldest.stub):
                run.note(
                    "prune",
                    worker=self._worker.name,
                    lo=cut.lo,
                    hi=cut.hi,
                    at=len(live.log),
                    tool=oldest.tool,
                    mode=mode,
                    left=called(mode),
                )
            self._worker.view = live.view

    def _lacks(self, tokens: int) -> bool:
        engine = self._run.engine
        limits = [limit for limit in (self._most, engine.shape.longest) if limit is not None]
        over = any(self.tokens + tokens > limit for limit in limits)
        room = tokens + 4 * engine.pool.page_size
        return over or room > engine.pool.free_for(room)


def inside_string(text: str) -> str:
    """Text as the inside of a string of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
