"""One writer of a thread: a worker that writes a task document, and what each of its tokens sets off."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_

import torch
from torch import Tensor

from kvorum.engine.row import Cost, Row
from kvorum.harness.live_text import Cut, Live, Mode, called
from kvorum.harness.tools.call import Outcome
from kvorum.harness.tools.tool import Tool
from kvorum.jsontypes import Json
from kvorum.kv import View
from kvorum.programs.thread.grammar import DocumentGrammar, Vocabulary
from kvorum.programs.thread.parse import Happened, Reader
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker

_RESULT = b',"tool_result":"'
_LIST = b',"subtasks":['


@dataclass(slots=True, eq=False)
class ThreadRules:
    """What holds for all writers of a thread; see ``thread`` for the meaning."""

    words: Vocabulary
    buffer: int
    trigger: str
    mode: Mode
    stub: list[int]
    keep: bool
    levels: int
    siblings: str
    schema: Callable[..., dict[str, Json]] | None
    forced: bool
    tools: list[Tool]
    script: Mapping[str, Sequence[str]] | None
    pruned: list[tuple[Live, Cut]] = field(default_factory=list)

    @property
    def parallel(self) -> bool:
        """Whether the subtasks of a plan are written at the same time."""
        return self.siblings != "serial"


class TaskWriter:
    """A worker with its document. After each tick ``after`` reads the picked token and does what it asks for."""

    def __init__(
        self, run: Run, worker: Worker, view: View, rules: ThreadRules, levels: int, title: str | None = None
    ) -> None:
        self.run, self.worker, self.rules, self.levels = run, worker, rules, levels
        self.live = Live(run, worker.name, view)
        self.reader = Reader()
        self.grammar = (
            DocumentGrammar(run.engine.grammars, rules.schema(levels, root=title is None)) if rules.schema else None
        )
        self.children: list[TaskWriter] = []
        self.peers: list[TaskWriter] = []
        """Its siblings, if they are a live team: it sees what they write, before its own document."""
        self.call: Happened | None = None
        self.closed: list[tuple[int, int]] = []
        """The pruning buffer: log ranges of finished subtask lists, oldest first."""
        self.closing = b""
        self._opened: list[int] = []
        self._waiting: list[tuple[int, tuple[int, int]]] = []
        self._fresh_block = False
        self._script: list[int] | None = None
        if rules.script is not None:
            self._script = [token for part in rules.script.get(title or "", [""]) for token in rules.words.encode(part)]
        self._scripted = 0
        self._shown: list[View] = []
        worker.allow = self.allow
        self.look()

    def look(self) -> None:
        """Let the worker see what is live of its document and, in a live team, of its siblings'."""
        live = self.live
        views = [live.view, *(peer.live.view for peer in self.peers)]
        if len(views) == len(self._shown) and all(map(is_, views, self._shown)):
            return
        self._shown = views
        beside = [item for peer in self.peers for item in peer.live.view.splice(0, live.base).items]
        own = live.view.splice(0, live.base).items if beside else ()
        self.worker.view = View(*live.view.fork(live.base).items, *beside, *own) if beside else live.view

    @property
    def broken(self) -> bool:
        """The document cannot go on: its last token is none that JSON or the schema has there."""
        return self.reader.failed or (self.grammar is not None and self.grammar.stuck)

    @property
    def ready(self) -> bool:
        """Whether it wants the next tick."""
        return not (self.reader.done or self.broken or self.children or self.call)

    def allow(self, logits: Tensor) -> Tensor | None:
        """What the worker may pick: the script's next token, or what the schema has."""
        if self._script is not None:
            mask = torch.zeros(len(logits), dtype=torch.bool)
            left = self._script[self._scripted : self._scripted + 1] or sorted(self.run.ends)
            mask[left] = True
            return mask if left else None
        return None if self.grammar is None else self.grammar.allowed(self.reader.in_string, self.reader.uncut)

    async def after(self) -> None:
        """Take in the token that was just picked."""
        if self._fresh_block:
            self._fresh_block = False
            self._open_block()
        self._scripted += 1
        self.live.pending = 0  # all but the new token is in the cache
        await self._take(self.worker.ids[-1:])
        await self.force()

    async def insert(self, text: bytes) -> None:
        """Append given text; it enters the cache with the next tick."""
        ids = self.rules.words.encode(text)
        self.worker.feed(ids)
        await self._take(ids)

    async def resume(self, outcome: Outcome) -> None:
        """Fill in the result of the tool that was called."""
        assert self.call is not None
        written = bytes(self.reader.data[self.call.end :])
        self.call = None
        self.look()  # recall may have changed it
        text = _RESULT + _string(outcome.text) + b'"}'
        await self.insert(text[len(written) :])
        await self.force()

    async def join(self) -> None:
        """Take the finished children's text and cache into the document, and close their list."""
        children, self.children = self.children, []
        for at, child in enumerate(children):
            if at + 1 < len(children):
                comma = self.rules.words.encode(b",")
                child.worker.feed(comma)
                child.live.log += comma
            await child.flush(len(child.worker.pending))
            start = self.live.adopt(child.live)
            self._follow(child.live.log)
            self.closed += [(start + lo, start + hi) for lo, hi in child.closed]
            for number, (live, cut) in enumerate(self.rules.pruned):
                if live is child.live:
                    moved = next((c for c in self.live.cuts if c.lo == cut.lo + start and c.hi == cut.hi + start), cut)
                    self.rules.pruned[number] = (self.live, moved)
        self._open_block()
        await self.insert(b"]")
        await self.force()

    def _follow(self, ids: Sequence[int]) -> None:
        self.reader.feed(b"".join(self.rules.words.pieces[token] for token in ids))
        if self.grammar is not None:
            self.grammar.take(ids)

    async def force(self) -> None:
        """Take in the tokens that the schema leaves no choice about; they are not picked but prefilled."""
        while self.grammar is not None and self.rules.forced and self._script is None and self.ready:
            ids = self.grammar.forced(self.reader.uncut)
            if not ids:
                return
            self.worker.feed(ids)
            await self._take(ids)

    async def _take(self, ids: Sequence[int]) -> None:
        """Log ids that are pending, and do what they set off."""
        happened: list[tuple[int, Happened]] = []
        for number, token in enumerate(ids):
            before, end = self.reader.closing(), token in self.run.ends
            events = [] if end else self.reader.feed(self.rules.words.pieces[token])
            self.reader.failed |= end and not self.reader.done
            if self.grammar is not None and not end:
                self.grammar.take([token])
            if self.broken:
                self.closing = before
                del self.worker.pending[len(self.worker.pending) - (len(ids) - number) :]
                break
            happened += [(len(self.live.log), event) for event in events]
            self.live.log.append(token)
        self.live.pending = len(self.worker.pending)
        for at, event in happened:
            await self._react(at, event)
        await self._prune()

    async def _react(self, at: int, event: Happened) -> None:
        if event.kind == "list_open":
            self._opened.append(at + 1)
            await self._cut(at + 1)
        elif event.kind == "list_close":
            await self._cut(at)
            finished = (self._opened.pop(), at)
            if self.rules.trigger == "list":
                self.closed.append(finished)
            else:
                self._waiting.append((event.depth, finished))
        elif event.kind == "conclusion":
            self.closed += [finished for depth, finished in self._waiting if depth == event.depth]
            self._waiting = [wait for wait in self._waiting if wait[0] != event.depth]
        elif event.kind == "call" and _RESULT.startswith(bytes(self.reader.data[event.end :])):
            self.call = event
        elif event.kind == "plan" and self.rules.parallel and self.levels:
            await self._fork(event)

    async def _cut(self, at: int) -> None:
        """Let the log's tokens from ``at`` on go to a block of their own."""
        after = len(self.live.log) - at
        if not after:
            self._fresh_block = True  # once the last token is in the cache
            return
        await self.flush(self.live.pending - after)
        self._open_block()

    def _open_block(self) -> None:
        self.live.open_block()
        self.look()

    async def flush(self, count: int) -> None:
        """Bring the first ``count`` pending tokens into the cache now."""
        worker = self.worker
        if count > 0:
            self.look()
            await self.run.forward([Row(worker.view, ids=worker.pending[:count])], [Cost(worker.picked)])
            worker.pending, worker.picked = worker.pending[count:], 0
        self.live.pending = len(worker.pending)

    async def _prune(self) -> None:
        over = len(self.closed) - self.rules.buffer
        if over <= 0 or self.rules.mode == "none":
            return
        ranges, self.closed = self.closed[:over], self.closed[over:]
        rules = self.rules
        for cut in await self.live.prune(ranges, rules.mode, rules.stub, rules.keep):
            at, left = len(self.live.log), called(rules.mode)
            self.run.note("prune", worker=self.worker.name, lo=cut.lo, hi=cut.hi, at=at, left=left)
            rules.pruned.append((self.live, cut))
        self.look()

    async def _fork(self, plan: Happened) -> None:
        """Start one writer per item of the plan, over this writer's cache; this writer waits for them."""
        written = bytes(self.reader.data[plan.end :])
        if not _LIST.startswith(written):
            return
        await self.insert(_LIST[len(written) :])
        await self.flush(len(self.worker.pending))
        self._fresh_block = False
        run = self.run
        for number, item in enumerate(plan.items, start=1):
            name = f"{self.worker.name}.{number}"
            while any(other.name == name for other in run.workers):
                name += "'"
            view = self.live.view.fork(len(self.live.view), run.block(name))
            child = TaskWriter(run, run.add_worker(name), view, self.rules, self.levels - 1, item.strip('"'))
            self.children.append(child)
        if self.rules.siblings == "live":
            for child in self.children:
                child.peers = [other for other in self.children if other is not child]
        for child, item in zip(self.children, plan.items, strict=True):
            await child.insert(b'{"title":' + item.encode() + b",")
            await child.force()


def _string(text: str) -> bytes:
    """Text as the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
