"""The conversation on kvorum: with memory and skills as blocks, and with all of it as text at the front of the prompt.

Both read the same texts, the first with what is new behind what was there. The second keeps what its prompt has in
common with the one before, as a server with a prefix cache does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from kvorum.api import Engine
from kvorum.bench.talk.script import Turn, skill_body
from kvorum.engine.budget import Budget
from kvorum.harness.shared_text import encode, quoted_ids, turn_ids
from kvorum.harness.text_blocks import TextBlocks
from kvorum.kv import Block, View
from kvorum.runs.program import Program
from kvorum.runs.run import Run
from kvorum.sampling.sampling import Sampling

TOKENS = 12
"""The most tokens of an answer."""
HEADING = "What is remembered:\n"


@dataclass(slots=True)
class TalkFigures:
    """What a way of keeping the conversation took, turn by turn: tokens encoded, seconds to the first token, answers.

    ``new``: tokens of the text that the turn brought.
    """

    name: str
    new: list[int] = field(default_factory=list)
    encoded: list[int] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def add(self, turn: Turn, *, new: int, encoded: int, first: float, answer: str) -> None:
        """One turn's figures."""
        self.new.append(new)
        self.encoded.append(encoded)
        self.first.append(first)
        self.answers.append(answer)
        self.right.append(turn.right in answer)


@dataclass(slots=True)
class Pieces:
    """Texts of the conversation as ids, each as it is in every way of keeping it.

    ``opening``: what stands before all of it; ``around``: what ends a turn of the user and begins one of the assistant,
    and what ends that and begins the user's next.
    """

    run: Run
    opening: list[int]
    behind: list[int]
    between: list[int]
    known: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Pieces:
        """Those of a run's model."""
        opening, behind = turn_ids(run)
        after, _ = run.state.prompt(None)["around"]
        return cls(run, opening or run.encode("\n"), behind, run.encode(after))

    def ids(self, words: str) -> list[int]:
        """A text's ids, made once."""
        if words not in self.known:
            self.known[words] = quoted_ids(self.run, words)
        return self.known[words]

    def question(self, turn: Turn, first: bool) -> list[int]:
        """What a turn asks, from the end of what was said before to where the assistant begins."""
        return [*([] if first else self.between), *self.ids(turn.question), *self.behind]

    def front(self, turn: Turn) -> list[str]:
        """The texts at the front: memory, then skills."""
        return [HEADING, *turn.memory, *map(skill_body, turn.skills)]

    def new(self, turn: Turn, first: bool, seen: set[str]) -> int:
        """Tokens of what the turn brings: texts of the front that no turn before had, and the question."""
        fresh = [words for words in self.front(turn) if words not in seen]
        seen.update(fresh)
        return (
            sum(len(self.ids(words)) for words in fresh) + len(self.question(turn, first)) + first * len(self.opening)
        )


Arm: TypeAlias = "Callable[[Run, Sequence[Turn], TalkFigures], Awaitable[None]]"
"""A way of keeping the conversation in a run."""


def play(engine: Engine, name: str, turns: Sequence[Turn], arm: Arm) -> TalkFigures:
    """Have one way of keeping it go through the conversation."""
    figures = TalkFigures(name)

    async def function(run: Run) -> str | None:
        run.dismiss_workers()
        await arm(run, turns, figures)
        return "done"

    program = Program("talk", "a conversation that is measured", function)
    engine.run(program, "a conversation", budget=Budget(), sampling=Sampling())
    return figures


async def as_blocks(run: Run, turns: Sequence[Turn], figures: TalkFigures) -> None:
    """Each entry and each skill is a block; a turn sees those of now, and the turns before where they were written.

    What is new comes last and has read what stood there when it came, for entries that are alike are mixed up where
    each was encoded alone (docs/memory.md). What leaves is taken out of the view, and what comes back is as it was.
    """
    pieces, seen = Pieces.of(run), set[str]()
    said: list[Block] = []
    made, front = dict[str, Block](), list[str]()
    texts: TextBlocks | None = None
    for at, turn in enumerate(turns):
        new, spent, started = pieces.new(turn, not at, seen), run.ledger.prefill, time.perf_counter()
        if texts is None:
            texts = await TextBlocks.begin(run)
        wanted = pieces.front(turn)
        front = [words for words in front if words in wanted]
        for words in wanted:
            if words not in made:
                made[words] = await texts.block(words, "front", behind=[made[before] for before in front])
            if words not in front:
                front.append(words)
        own = run.block(f"turn {at + 1}")
        view = View(texts.opening, *(made[words] for words in front), *said, own)
        first, answer = await _answer(run, view, pieces.question(turn, not at), started)
        figures.add(turn, new=new, encoded=run.ledger.prefill - spent, first=first, answer=answer)
        said.append(own.seal())


async def as_text(run: Run, turns: Sequence[Turn], figures: TalkFigures) -> None:
    """The whole prompt anew each turn, of which as much is kept as it has in common with the one before."""
    pieces, seen = Pieces.of(run), set[str]()
    said: list[int] = []
    last = View()
    for at, turn in enumerate(turns):
        new, spent, started = pieces.new(turn, not at, seen), run.ledger.prefill, time.perf_counter()
        question = pieces.question(turn, not at)
        prompt = [*pieces.opening, *(token for words in pieces.front(turn) for token in pieces.ids(words)), *said]
        common = _common(last.ids, prompt)
        own = run.block(f"turn {at + 1}")
        view = last.fork(common, own)
        first, answer = await _answer(run, view, [*prompt[common:], *question], started)
        figures.add(turn, new=new, encoded=run.ledger.prefill - spent, first=first, answer=answer)
        last = View(*view.items)
        said = last.ids[len(prompt) - len(said) :]


async def _answer(run: Run, view: View, ids: Sequence[int], started: float) -> tuple[float, str]:
    """Seconds from ``started`` to the first token of an answer, and the answer."""
    run.dismiss_workers()  # that of the turn before holds what it saw
    worker = run.add_worker("talker")
    worker.view = view
    if len(ids) > run.engine.prefill_chunk:
        await encode(run, view, ids[:-1])
        ids = ids[-1:]
    worker.feed(list(ids))
    await run.tick([worker])
    first = time.perf_counter() - started
    while worker.ids[-1] not in run.ends and len(worker.ids) < TOKENS:
        await run.tick([worker])
    return first, worker.text


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
