"""The speaker of a run: the model speaks for its workers, all who speak at the same time in the same ticks.

Each worker has a thread, which is its view: rules, then in turn what it was told and what it said. The beginning that
threads under the same rules have in common is encoded once and stands in all their views. Over the channel "text" the
words of others are encoded again in the thread, as any chat program does. Over "cache" their tokens stand in the
thread's view where they were written: keys and values carry what their writer knew, and nothing is encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Literal, TypeAlias

from kvorum.engine import text
from kvorum.engine.row import Cost, Row
from kvorum.errors import BadRequest, GrammarError
from kvorum.harness.chain_of_thought import common_start
from kvorum.harness.speaker import Turn, TurnReply
from kvorum.kv import Span, View
from kvorum.runs.annotations import Help
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent
from kvorum.runs.worker import Worker

Channel: TypeAlias = Annotated[
    Literal["text", "cache"], Help("Messages pass as text, encoded by each reader, or as the cache of who wrote them.")
]
"""A program's parameter for it."""
WAVE = 2048
"""The most tokens of prompts that go through the model in one tick."""

Atom = int | Span
"""One place of a thread: a token id to encode, or tokens that are there already."""


class ModelSpeaker:
    """A ``Speaker``: the model, over ``channel`` "text" or "cache"."""

    def __init__(self, run: Run, channel: Literal["text", "cache"] = "text") -> None:
        self.run, self.channel = run, channel
        self.workers: dict[str, Worker] = {worker.name: worker for worker in run.workers}
        self.stopped = False
        self._shared: dict[str, tuple[list[Atom], View]] = {}
        added = getattr(run.engine.tokenizer, "added_tokens_decoder", {}).values()
        self._marks = [str(token) for token in added if getattr(token, "special", False)]

    async def __call__(self, turns: Mapping[str, Turn]) -> dict[str, TurnReply]:
        """Everyone in ``turns`` is told its turn and speaks. Never raises for what the model writes."""
        said = {name: TurnReply("", "left", name) for name in turns if not self.workers[name].active}
        turns = {name: turn for name, turn in turns.items() if name not in said}
        if self.over:
            return said | {name: TurnReply("", "stopped", name) for name in turns}
        try:
            await self._tell(turns)
        except Spent:
            return said | {name: TurnReply("", "stopped", name) for name in turns}
        starts = {name: len(self.workers[name].own) + 1 for name in turns}
        pieces: dict[str, list[str]] = {name: [] for name in turns}
        ends = dict.fromkeys(turns, "stopped")
        ticks = dict.fromkeys(turns, 0)
        speaking = list(turns)
        while speaking and not self.over:
            try:
                await self.run.tick([self.workers[name] for name in speaking])
            except Spent:
                break
            except (BadRequest, GrammarError):
                if not any(self.workers[name].failed for name in speaking):
                    raise
            for name in speaking:
                ticks[name] += 1
                ends[name] = self._look(name, turns[name], pieces[name], ticks[name])
            self._read_commands(pieces, ends)
            speaking = [name for name in speaking if ends[name] == "stopped"]
        await self._close([name for name in turns if ends[name] in ("cut", "late", "ended")])
        for name, words in pieces.items():
            block, start = self.workers[name].own, starts[name]
            said[name] = TurnReply("".join(words), ends[name], name, block, start, words, ticks[name])
        return said

    def _look(self, name: str, turn: Turn, pieces: list[str], ticks: int) -> str:
        """Take note of what a tick brought a worker; how its turn ended, "stopped" as long as it has not."""
        worker = self.workers[name]
        if worker.failed:  # it may speak again, under another grammar
            worker.active = True
            return "failed"
        pieces.append(worker.piece)
        if worker.ids[-1] in self.run.ends:
            worker.pending = []
            return "ended"
        if turn.grammar is not None and (forced := worker.force()):
            pieces += [""] * (len(forced) - 1) + [worker.piece]
        if turn.grammar is not None and worker.complete:
            return "ended"
        if len(pieces) >= turn.tokens:
            return "cut"
        return "late" if turn.ticks is not None and ticks >= turn.ticks else "stopped"

    @property
    def over(self) -> bool:
        """Whether nobody may speak any more."""
        return self.stopped or self.run.spent is not None

    def _read_commands(self, pieces: dict[str, list[str]], ends: dict[str, str]) -> None:
        for command in self.run.take_commands():
            worker = self.workers.get(command.worker)
            self.stopped |= command.kind == "answer"
            if worker is not None and command.kind == "leave":
                worker.active, worker.pending = False, []
                ends |= {worker.name: "left"} if worker.name in ends else {}
            elif worker is not None and command.kind == "say" and ends.get(worker.name) == "stopped":
                ids = self.run.encode(command.text)
                worker.feed(ids)
                pieces[worker.name] += [""] * len(ids)

    async def _close(self, names: Sequence[str]) -> None:
        """Write the last tokens of those who were cut, or whose grammar was complete, so that others can see them.

        What a grammar has put at the end is in no tick; a note "closed" tells its text.
        """
        rows = [self.workers[name].row() for name in names if self.workers[name].pending]
        for name in names:
            worker = self.workers[name]
            if words := self.run.read(worker.pending[worker.picked :]):
                self.run.note("closed", worker=name, text=words)
        with suppress(Spent):
            if rows and not self.over:
                await self.run.forward(rows, [Cost(1)] * len(rows))
        for name in names:
            self.workers[name].pending = []

    async def _tell(self, turns: Mapping[str, Turn]) -> None:
        """Encode the turns, all but their last token, which the first tick takes."""
        rows: list[Row] = []
        atoms = {name: self._atoms(turn) for name, turn in turns.items()}
        bases = {name: self.workers[name].view for name, turn in turns.items() if turn.system is None}
        for rules in dict.fromkeys(turn.system for turn in turns.values() if turn.system is not None):
            group = [name for name, turn in turns.items() if turn.system == rules]
            count, view = self._share(rules, [atoms[name] for name in group], rows)
            for name in group:
                bases[name], atoms[name] = view.then(self.run.block(name)), atoms[name][count:]
        for name, turn in turns.items():
            worker = self.workers[name]
            view, ids = self._lay(bases[name], atoms[name], name, rows)
            if ids[:-1]:
                rows.append(Row(view, ids=ids[:-1]))
            worker.view, worker.pending, worker.picked = view, ids[-1:], 0
            sampling = self.run.sampling
            if turn.temperature is not None:
                sampling = replace(sampling, temperature=turn.temperature)
            if turn.grammar is not None:
                sampling = replace(sampling, grammar=turn.grammar)
            worker.begin(sampling)
            self.run.note("told", worker=name, text=turn.text)
        while rows and not self.over:
            count, total = 1, rows[0].count
            while count < len(rows) and total + rows[count].count <= WAVE:
                total += rows[count].count
                count += 1
            await self.run.forward(rows[:count], [Cost(0)] * count)
            rows = rows[count:]

    def _atoms(self, turn: Turn) -> list[Atom]:
        """A turn in its place of the chat template. It ends in an id, for the template has words behind the user's."""
        tokenizer = self.run.engine.tokenizer
        words, behind = self.run.state.prompt(turn.system)["around"]
        first = turn.system is not None and not getattr(tokenizer, "chat_template", None)
        atoms: list[Atom] = []
        for part in turn.parts:
            if isinstance(part, str):
                words += part
            elif self.channel == "text" or part.span is None or not len(part.span):
                for mark in self._marks:  # nobody ends somebody else's turn by spelling its end mark
                    part = replace(part, text=part.text.replace(mark, ""))
                words += part.text
            else:
                atoms += [*text.encode(tokenizer, words, special=first and not atoms), part.span]
                words = ""
        return atoms + text.encode(tokenizer, words + behind, special=first and not atoms)

    def _share(self, rules: str, threads: Sequence[list[Atom]], rows: list[Row]) -> tuple[int, View]:
        """A view of what new threads have in common, and how many of their atoms that is. Each keeps one of its own."""
        common = common_start([thread[:-1] for thread in threads])
        known, view = self._shared.get(rules, ([], View()))
        kept = len(common_start([known, common]))
        view = view.fork(sum(1 if isinstance(atom, int) else len(atom) for atom in known[:kept]))
        if common[kept:]:
            view, ids = self._lay(view.then(self.run.block("rules")), common[kept:], "rules", rows)
            if ids:
                rows.append(Row(view, ids=ids))
        self._shared[rules] = (common, view)
        return len(common), view

    def _lay(self, view: View, atoms: Sequence[Atom], name: str, rows: list[Row]) -> tuple[View, list[int]]:
        """Put atoms behind the open end of ``view``: rows to encode, the view then, and the ids still to come there."""
        ids: list[int] = []
        for atom in atoms:
            if isinstance(atom, int):
                ids.append(atom)
                continue
            if ids:
                rows.append(Row(view, ids=ids))
            view, ids = view.then(atom, self.run.block(name)), []
        return view, ids
