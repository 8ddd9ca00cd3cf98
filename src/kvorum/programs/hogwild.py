"""Hogwild! Inference: workers that see each other's words as they are written (arXiv 2504.06261).

A program over views: finished steps are appended to a shared history; each worker sees the prompt and history, the
others' unfinished steps, and last its own. ``docs/hogwild.md`` lists every deliberate difference from the paper.
"""

from __future__ import annotations

from kvorum.engine.run import Run, program
from kvorum.engine.worker import Worker
from kvorum.errors import BadRequest, UnknownName
from kvorum.kv import Block, View
from kvorum.programs import hogwild_text as words
from kvorum.programs.answer import extract, force, kind_of

LAYOUTS = ("combined", "interleaved", "contiguous")


@program("hogwild", "workers see each other's thoughts, token by token, over one cache", workers=4)
async def hogwild(
    run: Run,
    *,
    layout: str = "combined",
    answer: str = "boxed",
    check_every: int = 1024,
    openings: bool = True,
    ends: str = "sentence",
    headers: str = "context",
    suppress_end: bool = False,
    suppress_markup: bool = True,
    final: str = "cache",
    final_tokens: int | None = None,
) -> str | None:
    """Let the team think together until a finished step holds an answer, everyone has left, or the budget is spent.

    Args:
        layout: "combined" (history, others' unfinished steps, own step), "interleaved" (history, own step) or
            "contiguous" (prompt, others' whole texts, own text; no history).
        answer: the kind of answer. check_every: after so many tokens of all workers, the next one to begin a step is
            asked whether its work is redundant (0: never). openings: begin with a few given words. ends: a step ends at
            an empty line behind a "sentence", or at any empty "line".
        headers: headings encoded in "context" or "alone", as the paper does. suppress_end: ban end tokens, so that
            nobody leaves; otherwise a worker that ends its text has left. suppress_markup: ban tokens that begin a
            heading or, but for code, bold text or "<", so that nobody writes the team's headings, labels and marks.
        final: force the answer from the shared "cache" or "reencode" the text, as the paper does.
        final_tokens: the most tokens of a forced answer.
    """
    for name, value, known in (
        ("layout", layout, LAYOUTS),
        ("ends", ends, ("sentence", "line")),
        ("headers", headers, ("context", "alone")),
        ("final", final, ("cache", "reencode")),
    ):
        if value not in known:
            raise UnknownName(f"There is no {name} {value!r}; there are: {', '.join(known)}.")
    kind = kind_of(answer)
    banned = run.ends if suppress_end else frozenset[int]()
    if suppress_markup:
        banned |= words.markup(run.vocabulary(), code=answer == "code") - run.ends
    team = Team(run, layout, check_every, openings, ends == "sentence", banned)
    with run.setting_up():
        await team.begin(words.rules([w.name for w in run.workers], kind.request), headers)
    while not run.spent:
        if await team.read_commands() or not (active := team.active):
            break
        await run.tick(active)
        for worker in active:
            if (step := team.after(worker, active)) and (found := extract(step, kind)):
                run.note("found", worker=worker.name)
                return found
    finisher = (team.active or run.workers)[-1]
    if not team.active and layout != "contiguous":  # all that was written is in the history
        finisher.view = View(team.history, run.block("final"))
    if final == "cache":
        return await force(run, finisher, kind, tokens=final_tokens)
    text = team.text()
    finisher.view = View(run.block("final"))
    return await force(run, finisher, kind, tokens=final_tokens, first=team.prompt + run.encode(text))


class Team:
    """The blocks of a Hogwild! team and the life of its steps."""

    def __init__(
        self, run: Run, layout: str, check_every: int, openings: bool, sentence: bool, banned: frozenset[int]
    ) -> None:
        self.run, self.layout = run, layout
        self.check_every, self.openings, self.sentence, self.banned = check_every, openings, sentence, banned
        self.prompt: list[int] = []
        self.history = run.block("history")
        self.heads = [run.block("others"), run.block("own")]
        self.marks: list[Block] = []  # between unfinished steps of others; a token may stand in a view only once
        self.steps: dict[str, int] = {}
        self.current: dict[str, str] = {}  # text of the unfinished step
        self.blocks: dict[str, Block] = {}
        self.unchecked = 0

    @property
    def active(self) -> list[Worker]:
        """Who still writes."""
        return [worker for worker in self.run.workers if worker.active]

    async def begin(self, rules: str, headers: str) -> None:
        """Encode the prompt and the headings, and give everyone its first words."""
        run = self.run
        past = "" if self.layout == "contiguous" else words.PAST
        self.prompt = run.chat(("user", rules + run.task.prompt)) + run.encode(past)
        await run.prefill(View(self.history), self.prompt)
        texts = (f"{words.SEPARATOR}{words.OTHERS}", f"{words.MARK}{words.SEPARATOR}{words.OWN}")
        if self.layout == "interleaved":
            texts = ("", f"{words.SEPARATOR}{words.OWN}")
        before: tuple[Block, ...] = (self.history,) if headers == "context" else ()
        for head, text in zip(self.heads, texts, strict=True):
            await run.prefill(View(*before, head), run.encode(text))
            before += (head,) if headers == "context" else ()
        for at in range(len(run.workers) - 2 if self.layout != "interleaved" else 0):
            self.marks.append(run.block(f"mark{at}"))
            await run.prefill(View(*before, self.marks[-1]), run.encode(words.MARK))
        for at, worker in enumerate(run.workers):
            self.enter(worker, words.opening([w.name for w in run.workers], at) if self.openings else "")
        self.show()

    def enter(self, worker: Worker, first: str) -> None:
        """Give a worker its first step."""
        worker.ban(self.banned)
        self.steps[worker.name] = 0
        self.start_step(worker, first)

    def start_step(self, worker: Worker, first: str = "") -> None:
        """A new label, behind whatever the worker has pending; a fresh block where steps are moved."""
        name = worker.name
        self.steps[name] += 1
        text = words.label(name, self.steps[name]) + first
        if self.check_every and self.unchecked > self.check_every and self.steps[name] > 1:
            text, self.unchecked = text + words.CHECK, 0
            self.run.note("check", worker=name)
        if self.layout != "contiguous" or name not in self.blocks:
            self.blocks[name] = self.run.block(f"{name}.{self.steps[name]}")
        self.current[name] = text
        # every step begins with the separator: the first is given it, later ones have it pending from the step before
        worker.feed(self.run.encode(text if worker.pending else words.SEPARATOR + text))

    def show(self) -> None:
        """Give every active worker the view that the layout says."""
        for worker in self.active:
            others: list[Block] = []
            if self.layout != "interleaved":
                for at, name in enumerate(n for n in self.blocks if n != worker.name):
                    others += [self.blocks[name]] if at == 0 else [self.marks[at - 1], self.blocks[name]]
            heads = self.heads if others or self.layout != "interleaved" else self.heads[1:]
            worker.view = View(self.history, *heads[:-1], *others, heads[-1], self.blocks[worker.name])

    def after(self, worker: Worker, active: list[Worker]) -> str | None:
        """What a worker's new token does to the team; returns the text of a step that it finished."""
        name, token = worker.name, worker.ids[-1]
        self.unchecked += 1
        self.current[name] += worker.piece
        left = token in self.run.ends
        if not left and not words.step_ends(self.current[name], len(worker.piece), self.sentence):
            return None
        step = self.current[name]
        if self.layout != "contiguous":
            self.run.move([self.blocks[name]], self.history, name)
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
        for command in self.run.take_commands():
            if command.kind == "answer":
                return True
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
                    self.run.move([self.blocks[command.worker]], self.history, command.worker)
                self.leave(named[0])
                self.show()
        return False

    async def join(self, name: str) -> None:
        """A new worker enters between two ticks and sees everything that is there."""
        worker = self.run.join(name)
        if self.layout != "interleaved" and len(self.blocks) >= 2:
            self.marks.append(self.run.block(f"mark{len(self.marks)}"))
            view = View(self.history, self.heads[0], self.marks[-1])
            await self.run.prefill(view, self.run.encode(words.MARK))
        self.enter(worker, words.joining(name) if self.openings else "")
        self.show()

    def text(self) -> str:
        """History and unfinished steps as text, for re-encoding."""
        parts = [self.run.read(self.history.ids[len(self.prompt) :]), f"{words.SEPARATOR}{words.OTHERS}"]
        parts += [f"{words.SEPARATOR}{step}{words.MARK}" for step in self.current.values()]
        return "".join(parts)
