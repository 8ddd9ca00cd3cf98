"""Controls of a Hogwild! team: what changes if the others' blocks are not really shared?

Everything stays as it is (prompts, headings, labels, ticks, budget) but for what a worker sees of the others. So each
has a history of its own, in which its own steps stand as they are and the others' as the channel gives them:

- "none": not at all. Independent workers with the team's prompt.
- "text": the same words at the same places in the same ticks, encoded by the reader in its own context, as a chat
  program would. Costs workers - 1 prefilled tokens for each token. Of steps finished in one tick the own comes first.
- "zeroed", "random": as many tokens whose keys and values are 0, or normal numbers with the moments of the prompt's.
- "mismatched": the words of a second team, which works on another problem in the same ticks; its tokens are on the
  ledger too. Its members are called as those in whose places they stand.

Not covered: joining while the run goes on; memory; the contiguous layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvorum.engine.row import Row
from kvorum.errors import BadRequest
from kvorum.harness.shadow_team import SHADOW
from kvorum.kv import Block, Span, View
from kvorum.programs.hogwild import prompts
from kvorum.programs.hogwild.team import Team, TeamRules
from kvorum.runs.program import Task
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker


class Apart(Team):
    """A team whose members share no blocks but the prompt."""

    def __init__(self, run: Run, rules: TeamRules, *, channel: str, other: Task) -> None:
        super().__init__(run, rules)
        if run.injections.links:
            raise BadRequest(f"Link injections are for channel='cache', not {channel!r}.")
        self.channel, self.other = channel, other
        self.pasts: dict[str, Block] = {}
        """Each reader's own history of finished steps."""
        self.shown: dict[tuple[str, str], Block] = {}
        """What (reader, writer) stands where the writer's unfinished step would; one for all readers if it holds
        nothing."""
        self.arrived: dict[str, list[tuple[str, list[int]]]] = {}
        """Over "text": writers and ids of finished steps that a reader has yet to encode at the end of its history."""
        self.blank: Block | None = None
        self.taken = 0
        self.shadows: Shadows | None = None
        if channel == "mismatched":
            self.shadows = Shadows(run, rules, hear=self.hear)

    async def begin(self, request: str, task: Task, headers: str) -> None:
        """As any team, and the second team where there is one."""
        if self.shadows is not None:
            await self.shadows.begin(request, self.other, headers)
        await super().begin(request, task, headers)
        if self.channel in ("zeroed", "random"):
            self.blank = self.run.imitate(self.history, self.channel, seed=self.run.seed)

    def enter(self, worker: Worker, first: str) -> None:
        """Give a worker a history and its first step."""
        self.pasts[worker.name] = self.run.block(f"{worker.name}.past")
        super().enter(worker, first)

    def start_step(self, worker: Worker, first: str = "") -> None:
        """A new step needs new stand-ins."""
        super().start_step(worker, first)
        name = worker.name
        nothing = self.run.block(f"{self.channel} {name}.{self.steps[name]}")
        self.run.credit(nothing, name)
        for reader in self.members:
            if reader is not worker and self.channel == "text":
                self.shown[reader.name, name] = self.run.block(f"{reader.name} of {name}.{self.steps[name]}")
                self.run.credit(self.shown[reader.name, name], name)
            elif reader is not worker and self.channel in ("zeroed", "random"):
                self.shown[reader.name, name] = nothing

    def past(self, name: str) -> View:
        """The prompt and the reader's own history."""
        return View(self.history, self.pasts[name])

    def faces(self, reader: str) -> Sequence[Block | Span]:
        """What stands in the places of the others' unfinished steps."""
        if self.shadows is not None:
            return [block for name, block in self.shadows.blocks.items() if name != reader + SHADOW]
        return [self.shown[reader, name] for name in self.blocks if (reader, name) in self.shown]

    async def tick(self, active: list[Worker]) -> None:
        """A tick of everyone, with what the channel needs in the same tick."""
        shadows = [] if self.shadows is None else self.shadows.active
        if self.blank is not None:
            for worker in active:
                blocks = {block.uid: block for (_, name), block in self.shown.items() if name == worker.name}
                for block in blocks.values():
                    self.fill(block, len(worker.pending))
        also = self.copies(active) if self.channel == "text" else []
        await self.run.tick([*active, *shadows], also)
        if self.shadows is not None:
            finished = [self.shadows.after(worker) for worker in shadows]
            if any(step is not None for step in finished):
                self.show()

    @property
    def settling(self) -> int:
        """One for each reader that encodes what the others wrote."""
        return len(self.members) if self.channel == "text" else 0

    async def settle(self) -> None:
        """Encode the finished steps that arrived with the last tick."""
        with self.run.setting_up():
            for row in self.arrivals():
                await self.run.prefill(row.view, list(row.ids or ()))

    def arrivals(self) -> list[Row]:
        """Rows that encode what arrived at each reader's history."""
        rows = []
        for reader, steps in self.arrived.items():
            start = len(self.pasts[reader])
            for writer, ids in steps:
                self.run.credit(self.pasts[reader], writer, start, start + len(ids))
                start += len(ids)
            if ids := [token for _, ids in steps for token in ids]:
                rows.append(Row(self.past(reader), ids=ids))
        self.arrived = {}
        return rows

    def copies(self, active: list[Worker]) -> list[Row]:
        """Over "text": rows that encode, for each reader, the finished steps that arrived and what is being written."""
        rows = self.arrivals()
        if self.layout == "interleaved":
            return rows
        pending = {worker.name: worker.pending for worker in active}
        for reader in self.active:
            before, seen = self.before(reader.name), list[Block]()
            for at, writer in enumerate(name for name in self.blocks if name != reader.name):
                stand_in = self.shown[reader.name, writer]
                seen += [stand_in] if at == 0 else [self.marks[at - 1], stand_in]
                if pending.get(writer):
                    rows.append(Row(View(*before, self.heads[0], *seen), ids=tuple(pending[writer])))
        return rows

    def fill(self, block: Block, count: int) -> None:
        """Append ``count`` tokens that hold nothing."""
        assert self.blank is not None
        while count:
            at = self.taken % len(self.blank)
            some = min(count, len(self.blank) - at)
            self.run.copy([Span(self.blank, at, at + some)], block)
            self.taken += some
            count -= some

    def keep(self, name: str) -> None:
        """A step is finished: it joins its writer's history as it is, and the others' as the channel gives it."""
        self.run.move([self.blocks[name]], self.pasts[name], name)
        for reader in self.pasts:
            stand_in = self.shown.pop((reader, name), None)
            if self.channel == "text" and reader != name:
                self.arrived.setdefault(reader, []).append((name, self.blocks[name].ids))
            elif stand_in is not None:
                self.run.copy([stand_in], self.pasts[reader], name)

    def hear(self, name: str, block: Block) -> None:
        """A shadow has finished a step."""
        for reader, past in self.pasts.items():
            if reader + SHADOW != name:
                self.run.copy([block], past, name)

    async def share(self, text: str) -> None:
        """Words from outside, in everyone's history."""
        for past in self.pasts.values():
            await self.run.prefill(View(self.history, past), self.run.encode(prompts.SEPARATOR + text.strip()))

    async def join(self, name: str) -> None:
        """Refused: these teams take in nobody, for there would be no past to show. Raises BadRequest."""
        raise BadRequest(f"Nobody can join a team with channel={self.channel!r}.")


class Shadows(Team):
    """The second team: on another problem, under the same names."""

    def __init__(self, run: Run, rules: TeamRules, *, hear: Callable[[str, Block], None]) -> None:
        super().__init__(run, rules)
        self.hear = hear
        count = len(run.workers)
        self.members = [run.make_worker(w.name + SHADOW, count + w.index) for w in run.workers]

    async def begin(self, request: str, task: Task, headers: str) -> None:
        """Private parts go to the shadow of their worker."""
        private = {name + SHADOW: text for name, text in task.private.items()}
        await super().begin(request, Task(task.prompt, private=private), headers)

    def keep(self, name: str) -> None:
        """Into the shadows' own history, and the other team's."""
        self.hear(name, self.blocks[name])
        super().keep(name)
