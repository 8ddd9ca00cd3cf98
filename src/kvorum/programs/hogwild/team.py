"""A Hogwild! team: its blocks, the life of its steps, who sees what, and what each worker has forgotten of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from kvorum.errors import BadRequest
from kvorum.harness.shadow_team import called
from kvorum.kv import Block, Gap, Span, View
from kvorum.programs.hogwild import prompts
from kvorum.runs.program import Task
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker


@dataclass(frozen=True, slots=True)
class TeamRules:
    """How a team works; see ``hogwild`` for the meaning. ``sentence``: steps end at empty lines behind a sentence;
    ``banned``: token ids that nobody picks, but for answers that are asked for."""

    layout: str = "combined"
    check_every: int = 1024
    openings: bool = True
    sentence: bool = True
    banned: frozenset[int] = frozenset()
    memory: int | None = None
    forget: str = "splice"
    wording: prompts.Wording = prompts.WORDINGS["short"]


class Team:
    """The blocks of a Hogwild! team and the life of its steps."""

    def __init__(self, run: Run, rules: TeamRules) -> None:
        self.run, self.rules, self.layout = run, rules, rules.layout
        self.members: list[Worker] = run.workers
        self.prompt: list[int] = []
        self.opens = ""  # what begins the assistant's turn, where that is not part of the prompt
        self.first: list[int] = []  # and its last token
        self.history = run.block("history")
        self.heads = [run.block("others"), run.block("own")]
        self.marks: list[Block] = []  # between unfinished steps of others; a token may stand in a view only once
        self.steps: dict[str, int] = {}
        self.current: dict[str, str] = {}  # text of the unfinished step
        self.blocks: dict[str, Block] = {}
        self.private: dict[str, Block] = {}  # what one worker alone was told
        self.unchecked = 0
        self.memory = rules.memory
        self.finished: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        """Where each worker's finished steps stand in the history, and the tick that finished them, oldest first."""
        self.ticks = 0

    @property
    def settling(self) -> int:
        """The most ticks that ``settle`` takes."""
        return 0

    @property
    def active(self) -> list[Worker]:
        """The members that still write."""
        return [worker for worker in self.members if worker.active]

    async def begin(self, request: str, task: Task, headers: str) -> None:
        """Encode the prompt and the headings, and give everyone its first words; ``request``: the form of an answer."""
        run, wording = self.run, self.rules.wording
        names = [called(worker.name) for worker in self.members]
        past = "" if self.layout == "contiguous" else wording.past
        told, own = wording.prompt(names, task.prompt, request), f"{prompts.SEPARATOR}{wording.own}"
        if wording.turns:
            begins, self.opens = run.state.prompt("")["around"]
            self.prompt = run.encode(f"{begins}{told}{past}")
        else:
            self.prompt = run.chat(("user", told)) + run.encode(past)
        await run.prefill(View(self.history), self.prompt)
        texts = (f"{prompts.SEPARATOR}{wording.others}", f"{wording.mark}{own}")
        if self.layout == "interleaved":
            texts = ("", own)
        before: tuple[Block, ...] = (self.history,) if headers == "context" else ()
        heads = [run.encode(text) for text in texts]
        if wording.turns:  # each worker is fed the last token itself, and so begins where an assistant's words do
            heads[-1], self.first = (ids := run.encode(self.opens))[:-1], ids[-1:]
        for head, ids in zip(self.heads, heads, strict=True):
            await run.prefill(View(*before, head), ids)
            before += (head,) if headers == "context" else ()
        for at in range(len(self.members) - 2 if self.layout != "interleaved" else 0):
            self.marks.append(run.block(f"mark{at}"))
            await run.prefill(View(*before, self.marks[-1]), run.encode(wording.mark))
        for name, text in task.private.items():
            self.private[name] = run.block(f"{name}.private")
            await run.prefill(View(*before[:1], self.private[name]), run.encode(prompts.private(text)))
        for at, worker in enumerate(self.members):
            self.enter(worker, wording.opening(names, at) if self.rules.openings else "")
        self.show()

    def enter(self, worker: Worker, first: str) -> None:
        """Give a worker its first step."""
        worker.ban(self.rules.banned)
        self.steps[worker.name] = 0
        self.start_step(worker, first)

    def start_step(self, worker: Worker, first: str = "") -> None:
        """A new label, behind whatever the worker has pending; a fresh block where steps are moved."""
        name, wording = worker.name, self.rules.wording
        self.steps[name] += 1
        text = wording.label.format(called(name), self.steps[name]) + first
        due = 0 < self.rules.check_every < self.unchecked
        if due and wording.check and self.steps[name] > 1:
            text, self.unchecked = text + wording.check, 0
            self.run.note("check", worker=name)
        if self.layout != "contiguous" or name not in self.blocks:
            self.blocks[name] = self.run.block(f"{name}.{self.steps[name]}")
        self.current[name] = text
        # every step begins with the separator: the first is given it, later ones have it pending from the step before
        if worker.pending or self.first:
            worker.feed([*([] if worker.pending else self.first), *self.run.encode(text)])
        else:
            worker.feed(self.run.encode(prompts.SEPARATOR + text))

    def show(self) -> None:
        """Give every active worker the view that the layout says."""
        for worker in self.active:
            others: list[Block | Span] = []
            if self.layout != "interleaved":
                for at, block in enumerate(self.faces(worker.name)):
                    others += [block] if at == 0 else [self.marks[at - 1], block]
            heads = self.heads if others or self.layout != "interleaved" else self.heads[1:]
            worker.view = View(*self.before(worker.name), *heads[:-1], *others, heads[-1], self.blocks[worker.name])

    def faces(self, reader: str) -> Sequence[Block | Span]:
        """The others' unfinished steps, as a worker sees them."""
        others = [(name, block) for name, block in self.blocks.items() if name != reader]
        if not self.run.injections.links:
            return [block for _, block in others]
        found = [(block, self.run.injections.link(name, reader, self.steps[name]).lag) for name, block in others]
        return [Span(block, 0, max(0, len(block) - lag)) if lag else block for block, lag in found if lag is not None]

    def before(self, name: str) -> tuple[Span | Gap, ...]:
        """What a worker sees before all unfinished steps: the history, and what it alone was told."""
        private = [self.private[name]] if name in self.private else []
        return View(*self.past(name).items, *private).items

    def past(self, name: str) -> View:
        """The history as a worker sees it: without its own steps but for the last ``memory``."""
        view = View(self.history)
        own = [(start, end) for start, end, _ in self.finished[name]]
        hidden = own[: max(0, len(own) - self.memory)] if self.memory is not None else []
        for start, end in sorted(hidden + self.withheld(name), reverse=True):
            view = view.gap(start, end) if self.rules.forget == "gap" else view.splice(start, end)
        return view

    def withheld(self, reader: str) -> list[tuple[int, int]]:
        """What of the others' finished steps does not get to the reader, or not yet."""
        hidden = []
        for name, spans in self.finished.items() if self.run.injections.links else ():
            for number, (start, end, tick) in enumerate(spans, start=1):
                lag = self.run.injections.link(name, reader, number).lag if name != reader else 0
                wait = end - start if lag is None else min(end - start, lag - (self.ticks - tick))
                if wait > 0:
                    hidden.append((end - wait, end))
        return hidden

    def recall(self) -> None:
        """Undo all forgetting: the steps stand in their places again."""
        self.memory = None
        self.show()

    def keep(self, name: str) -> None:
        """Append a worker's step to the history."""
        start = len(self.history)
        self.run.move([self.blocks[name]], self.history, name)
        self.finished[name].append((start, len(self.history), self.ticks))

    async def tick(self, active: list[Worker]) -> None:
        """A tick of everyone who still writes."""
        if self.ticks and self.run.injections.links:  # what is late has moved on
            self.show()
        await self.run.tick(active)
        self.ticks += 1

    async def settle(self) -> None:
        """Bring what everyone sees up to date, before somebody must answer."""

    def after(self, worker: Worker) -> str | None:
        """What a worker's new token does to the team; returns the text of a step that it finished."""
        name, token = worker.name, worker.ids[-1]
        self.unchecked += 1
        self.current[name] += worker.piece
        left = token in self.run.ends or not worker.active
        if not left and not prompts.step_ends(self.current[name], len(worker.piece), self.rules.sentence):
            return None
        step = self.current[name]
        if self.layout != "contiguous" and worker.active:  # what goes in circles is nothing to go on from
            self.keep(name)
        if left:
            self.leave(worker)
        else:
            self.start_step(worker)
        if self.layout != "contiguous" or left:
            self.show()
        return step

    def leave(self, worker: Worker) -> None:
        """A worker stops; what it wrote stays with the team."""
        worker.active = False
        worker.pending, worker.picked = [], 0
        if self.layout != "contiguous":
            del self.blocks[worker.name], self.current[worker.name]

    async def read_commands(self) -> bool:
        """Take up what was asked since the last tick. True if the answer is wanted now."""
        for command in self.run.take_commands(shared=True):
            if command.kind == "answer":
                return True
            if command.kind == "share":
                await self.share(command.text)
            named = [worker for worker in self.active if worker.name == command.worker]
            if command.kind == "join":
                try:
                    await self.join(command.worker)
                except BadRequest as error:  # the name is taken, or the team is full: no reason to end the run
                    self.run.note("refused", command="join", worker=command.worker, why=str(error))
            elif named and command.kind == "say":
                named[0].feed(self.run.encode(command.text))
                self.current[command.worker] += command.text
            elif named and command.kind == "leave":
                if self.layout != "contiguous":
                    self.keep(command.worker)
                self.leave(named[0])
                self.show()
        return False

    async def share(self, text: str) -> None:
        """Words from outside, where everyone sees them: in the history, or in every worker's own text."""
        said = prompts.SEPARATOR + text.strip()
        if self.layout != "contiguous":
            await self.run.prefill(View(self.history), self.run.encode(said))
            return
        for worker in self.active:
            worker.feed(self.run.encode(said))
            self.current[worker.name] += said

    async def join(self, name: str) -> None:
        """A new worker enters between two ticks and sees everything that is there."""
        worker = self.run.join(name)
        if self.layout != "interleaved" and len(self.blocks) >= 2:
            self.marks.append(self.run.block(f"mark{len(self.marks)}"))
            view = View(self.history, self.heads[0], self.marks[-1])
            await self.run.prefill(view, self.run.encode(self.rules.wording.mark))
        self.enter(worker, self.rules.wording.openings[2].format(name) if self.rules.openings else "")
        self.show()

    def text(self) -> str:
        """History and unfinished steps as text, for re-encoding."""
        parts = [self.run.read(self.history.ids[len(self.prompt) :]), f"{prompts.SEPARATOR}{self.rules.wording.others}"]
        parts += [f"{prompts.SEPARATOR}{step}{self.rules.wording.mark}" for step in self.current.values()]
        return "".join([*parts, self.opens])
