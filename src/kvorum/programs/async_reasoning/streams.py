"""The two streams: what each sees, and when which of them goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kvorum.engine.row import Cost, Row
from kvorum.harness.decisions.decide import decide
from kvorum.harness.decisions.questions import YesNo
from kvorum.harness.shared_text import quoted_ids
from kvorum.kv import Block, View
from kvorum.programs.async_reasoning.prompts import ENOUGH, NOTES, NOTICE, PARAGRAPH, Wording, unopened
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent
from kvorum.runs.worker import Worker

Mode = Literal["thinker", "both", "writer"]


class Streams:
    """Thinker and writer, their blocks and the mode in which they are.

    One way:  thinker ``[input][opening][thoughts]``, writer ``[input][opening][thoughts][split][answer]``.
    Mutual:   the thinker sees the answer before its thoughts: ``[input][heading][answer][split][thoughts]``.
    The pieces between are encoded once, in context, before anybody writes.
    """

    def __init__(
        self, run: Run, thinker: Worker, writer: Worker, words: Wording, *, mutual: bool, thoughts: str
    ) -> None:
        self.run, self.thinker, self.writer, self.words = run, thinker, writer, words
        self.mutual, self.thoughts = mutual, thoughts
        self.input = run.block("input")
        self.own = run.block(thinker.name)
        self.answer = run.block(writer.name)
        self.mode: Mode = "thinker"
        self.begun = False
        self._opening: list[Block] = []
        self._split: Block = self.answer
        self._notice: list[int] = []
        self._said = ""

    async def begin(self, problem: Sequence[int], reply: str) -> None:
        """Encode the problem, the user's turn open, and the pieces; give both workers their views. ``reply``: what ends
        that turn and opens the model's."""
        run = self.run
        plain = run.encode(unopened(reply))
        behind = plain if self.words is NOTES else run.encode(reply)
        opening, split = run.block("opening"), run.block("split")
        pieces = [(View(self.input), problem), (View(self.input, opening), [*behind, *run.encode(self.words.thoughts)])]
        pieces.append((View(self.input, opening, self.own, split), run.encode(self.words.writer)))
        heading, turn = run.block("heading"), run.block("turn")
        if self.mutual:
            pieces.append((View(self.input, heading), [*plain, *run.encode(self.words.answer)]))
            pieces.append((View(self.input, heading, self.answer, turn), run.encode(self.words.thinker)))
        for view, ids in pieces:
            await run.prefill(view, ids)
        self._opening, self._split = [self.input, opening], split
        self.thinker.view = (
            View(self.input, heading, self.answer, turn, self.own) if self.mutual else View(*self._opening, self.own)
        )
        self.writer.view = self._sees(self.own)
        for worker in (self.thinker, self.writer):
            worker.feed(run.encode("\n"))
        self.begun = True

    def _sees(self, thoughts: Block) -> View:
        """What the writer sees."""
        between = [] if self.thoughts == "none" else [thoughts]
        return View(*self._opening, *between, self._split, self.answer)

    async def write(self, *, every: int, then: bool, think: int | None) -> None:
        """Let them write until the writer has ended, or the budget has. ``then``: first the one, then the other."""
        run, steps = self.run, 0
        while not run.spent and self.writer.active:
            active = {"thinker": [self.thinker], "both": [self.thinker, self.writer], "writer": [self.writer]}
            await run.tick(active[self.mode])
            steps += 1
            await self._hear()
            if self.mode != "thinker" and self.ended:
                self.writer.active = False
            elif self.mode != "writer" and self._thought_out(think):
                await self._turn("writer")
            elif self.mode != "writer" and not then:
                if self.mode == "both" and self._ends_answer_paragraph():
                    await self._turn("thinker")
                if steps % every == 0 or self._ends_paragraph():
                    await self._turn("both" if await self._enough() else "thinker")
            elif self.mode == "writer" and self._ends_answer_paragraph():
                self._give_notice()

    @property
    def ended(self) -> bool:
        """Whether the writer has ended its text."""
        return bool(self.writer.ids) and self.writer.ids[-1] in self.run.ends

    def _thought_out(self, think: int | None) -> bool:
        """Whether the thoughts have ended: by an end token, at their most, or because the thinker was sent off."""
        worker = self.thinker
        ends = {*self.run.ends, self.words.close}
        return not worker.active or worker.ids[-1] in ends or (think is not None and len(worker.ids) >= think)

    def _ends_paragraph(self) -> bool:
        return self.run.read(self.thinker.ids[-2:]).endswith(PARAGRAPH)

    def _ends_answer_paragraph(self) -> bool:
        """Whether the writer's last token did: one that is part of a character adds no text, and ends nothing."""
        return bool(self.writer.piece) and self.writer.text.endswith(PARAGRAPH)

    async def _turn(self, mode: Mode) -> None:
        """Go over to another mode."""
        if mode == self.mode:
            return
        before, self.mode = self.mode, mode
        self.run.note("mode", mode=mode, thoughts=len(self.thinker.ids), answer=len(self.writer.ids))
        if mode == "writer":
            self.thinker.active, self.thinker.pending = False, []
        if before == "thinker":
            self._give_notice()
            if self.thoughts == "reencode":
                await self._encode_again()

    def _give_notice(self) -> None:
        """Tell the writer that there is more, if there is."""
        if self._notice:
            self.writer.feed(self._notice)
            self._notice = []

    async def _encode_again(self) -> None:
        """The thoughts so far once more, in one go: for the writer they are text, and nobody's cache."""
        again = self.run.block("thoughts")
        await self.run.prefill(View(*self._opening, again), self.own.ids)
        self.writer.view = self._sees(again)

    async def _enough(self) -> bool:
        """Whether the model says that the thoughts suffice for the next paragraph; not where it is as likely as not."""
        found = await decide(self.run, View(*self._sees(self.own).items), [YesNo(ENOUGH, "enough")])
        return bool(found) and found[0].shares["Yes"] > found[0].shares["No"]

    async def _hear(self) -> None:
        """Take up what was said: behind the problem, to the thinker, and as a notice to the writer at its next turn."""
        for command in self.run.take_commands():
            if command.kind == "answer":
                self.writer.active = False
            elif command.kind == "leave":
                self.thinker.active &= command.worker != self.thinker.name
                self.writer.active &= command.worker != self.writer.name
            elif command.kind == "say" and command.text != self._said:
                self._said = command.text  # what is said to all comes once for each
                ids = quoted_ids(self.run, f"\n\n{command.text}")
                await self.run.forward([Row(View(self.input), ids=ids)], [Cost(0)])
                if self.thinker.active:
                    self.thinker.feed(ids)
                self._notice = self.run.encode(NOTICE)

    async def last_words(self, most: int) -> None:
        """The writer writes what it can in so many tokens."""
        if self.mode == "thinker":
            self.mode = "writer"
            self.run.note("mode", mode="writer", thoughts=len(self.thinker.ids), answer=0)
        for _ in range(most):
            try:
                await self.run.tick([self.writer])
            except Spent:
                return
            if self.writer.ids[-1] in self.run.ends:
                return
