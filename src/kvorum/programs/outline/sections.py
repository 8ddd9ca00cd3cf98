"""The outline and its sections: what each of them sees, and who writes when.

Outline    [ prompt ][ outline ]
Section 2  [ prompt ]                                                      [ own ]     sees=none
Section 2  [ prompt ][ outline ]                                           [ own ]     sees=outline
Section 2  [ prompt ][ outline ][ Section 1 ][ Section 3 ][ Section 4 ]    [ own ]     sees=live
Section 2  [ what points are asked with ][ own: its number, its point ]                form=published
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from kvorum.engine.row import Cost
from kvorum.harness.chain_of_thought import share
from kvorum.harness.inner_programs import InnerPlace, answers_inside, asked_for
from kvorum.harness.pieces import Piece, write
from kvorum.harness.shared_text import quoted_ids
from kvorum.jsontypes import Json
from kvorum.kv import Block, View
from kvorum.programs.outline.prompts import NEXT, POINT, SKELETON, Title, asked, outline_grammar, titles
from kvorum.runs.program import Program, Task
from kvorum.runs.run import Run

Sees = Literal["none", "outline", "live"]


class Sections:
    """The text in the making. ``text`` is the outline as it was written, ``titles`` what was read of it, ``written``
    each title with what stands under it, and ``done`` whether all of it came to its end."""

    def __init__(self, run: Run, *, published: bool, sees: Sees, tokens: int | None) -> None:
        self.run, self.published, self.sees, self.tokens = run, published, sees, tokens
        self.outline = run.workers[0]
        self.text = ""
        self.titles: list[Title] = []
        self.done = False
        self._pieces: list[tuple[Title, Piece]] = []
        self._given: dict[Title, str | None] = {}
        self._prompt: list[Block] = []
        self._begin: list[int] = []

    @property
    def written(self) -> list[tuple[Title, str]]:
        """Titles with what stands under them, in order; of sections that nobody has begun, nothing."""
        own = [(title, piece.text) for title, piece in self._pieces]
        return own or [(title, text or "") for title, text in self._given.items()]

    async def plan(self, *, least: int, most: int, tokens: int) -> None:
        """Have the outline written, and read it."""
        run, worker = self.run, self.outline
        words = SKELETON.format(run.task.prompt) if self.published else asked(run.task.prompt, least, most)
        ids = run.chat(("user", words))
        self._prompt, self._begin = await share(run, "prompt", [ids]), ids
        worker.view = View(*self._prompt, run.block("outline"))
        worker.feed(ids)
        rule = worker.sampling.grammar
        if self.published:
            worker.feed(run.encode("1."))
        else:
            rule = outline_grammar(least, most)
            await run.beside(run.engine.grammars.matcher, rule)
        piece = Piece(worker, replace(worker.sampling, grammar=rule), tokens=tokens)
        await write(run, [piece])
        self.text = f"1.{piece.text}" if self.published else piece.text
        self.titles = titles(self.text, most) if piece.finish is not None else []

    async def write(self, *, together: bool) -> None:
        """Have every section written by a worker of its own: all in the same ticks, or one after the other."""
        run = self.run
        await self._close_outline(ended=False)
        prompts = [self._prompt_of(title) for title in self.titles]
        shared = await share(run, "points", prompts) if self.published else self._seen()
        blocks = [run.block(f"Section {title.number}") for title in self.titles]
        for at, title in enumerate(self.titles):
            worker = run.add_worker(f"Section {title.number}")
            others = [*blocks[:at], *(blocks[at + 1 :] if together else ())] if self.sees == "live" else []
            worker.view = View(*shared, *others, blocks[at])
            worker.feed(prompts[at])
            stop = () if self.published else (NEXT,)
            self._pieces.append((title, Piece(worker, run.sampling, stop=stop, tokens=self.tokens)))
            if not together:
                await write(run, [self._pieces[-1][1]])
        await write(run, [piece for _, piece in self._pieces])
        self.done = bool(self.titles) and all(piece.finish is not None for _, piece in self._pieces)

    async def by_program(self, program: Program, params: Mapping[str, Json], *, together: bool) -> None:
        """Have every section written by a program behind what a section sees; its answers are texts if it can."""
        await self._close_outline(ended=True)
        view = View() if self.sees == "none" else View(*self._seen())
        asked = "Write one section of the answer and nothing else"
        places = [
            InnerPlace(f"Section {title.number}", view, Task(f"{self.run.task.prompt}\n\n{asked}: {title.point}"))
            for title in self.titles
        ]
        found = await answers_inside(self.run, program, asked_for(program, params, "text"), places, together=together)
        self._given = dict(zip(self.titles, found, strict=True))
        self.done = bool(self.titles) and None not in found

    def _seen(self) -> list[Block]:
        """What all sections see in common."""
        return [*self._prompt] if self.sees == "none" else [*self._prompt, self.outline.own]

    def _prompt_of(self, title: Title) -> list[int]:
        """The ids that a section begins with."""
        run = self.run
        if self.published:
            words = POINT.format(problem=run.task.prompt, outline=self.text, number=title.number)
            return [*run.chat(("user", words)), *quoted_ids(run, title.point)]
        before = self._begin if self.sees == "none" else run.encode("\n\n")
        return [*before, *quoted_ids(run, title.heading)]

    async def _close_outline(self, *, ended: bool) -> None:
        """Put the outline's last token into its block; the end of a text only where ``ended``."""
        worker = self.outline
        if not ended:
            worker.reopen(self.run.ends)
        if worker.pending and self.titles:
            await self.run.forward([worker.row()], [Cost(worker.picked)])
        worker.pending, worker.picked, worker.active = [], 0, False
