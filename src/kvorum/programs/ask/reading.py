"""All questions asked of a text, or of its parts one after the other, and their answers put together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from kvorum.harness.asked import Answer, Asked, Quote
from kvorum.harness.documents import Document
from kvorum.harness.passages import Passages, Place
from kvorum.harness.pieces import Job, Piece, Script, write_rows
from kvorum.harness.shared_text import check_room, document_texts, quoted_ids, share_texts, turn_ids
from kvorum.kv import Block
from kvorum.programs.ask.parts import Part
from kvorum.programs.ask.prompts import (
    MERGE,
    MERGE_RULES,
    PART_RULES,
    QUOTE,
    RULES,
    is_stated,
    question_text,
)
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent
from kvorum.runs.worker import Worker

_SPLIT = "--split (split=True) reads it in parts"
_QUOTE_TOKENS = 64
"""The most tokens that it takes to say which sentence supports an answer; mostly a handful do."""


class Reading:
    """The questions of one run. ``room``: how many tokens a row takes at most behind the text."""

    def __init__(
        self, run: Run, asked: Sequence[str], tokens: int, rules: str | None, quote: bool, *, most: int
    ) -> None:
        self._run, self._asked, self._tokens, self._rules, self._most = run, asked, tokens, rules, most
        self._first, self._behind = turn_ids(run)
        self._quote: list[int] = []
        if quote:
            after, end = run.state.prompt(None)["around"]
            self._quote = run.encode(f"{after}{QUOTE}{end}")
        longest = max(len(quoted_ids(run, question)) for question in asked)
        told = len(quoted_ids(run, question_text("", max(rules or "", PART_RULES, key=len))))
        self.room = told + longest + len(self._behind) + tokens + self._quote_room
        self._read, self._known, self._loaded = 0.0, 0, 0

    @property
    def _quote_room(self) -> int:
        return len(self._quote) + _QUOTE_TOKENS if self._quote else 0

    async def read(self, parts: Sequence[Part], remarks: Mapping[str, str]) -> Asked:
        """Ask all questions of every part, and put together what several parts answer."""
        found: list[list[Answer]] = [[] for _ in self._asked]
        for number, part in enumerate(parts, 1):
            suffix = f".{number}" if len(parts) > 1 else ""
            try:
                answers = await self._ask(part, remarks, suffix, cut=len(parts) > 1)
            except Spent:
                if number == 1:
                    raise
                break
            for at, answer in enumerate(answers):
                found[at].append(answer)
        one = [answers[0] for answers in found] if len(parts) == 1 else await self._merged(found)
        return Asked(self._placed(one, parts), self._known, self._loaded, self._read, dict(remarks))

    async def _ask(self, part: Part, remarks: Mapping[str, str], suffix: str, *, cut: bool) -> list[Answer]:
        """The answers from one part."""
        run, started = self._run, time.perf_counter()
        rules = self._rules if self._rules is not None else PART_RULES if cut else RULES if part else ""
        ids = [[*quoted_ids(run, question_text(question, rules)), *self._behind] for question in self._asked]
        blocks: Sequence[Block] = ()
        if part:
            words = {name: text for name, (text, _) in part.items()}
            shared = await share_texts(
                run, document_texts(words, remarks), room=max(map(len, ids)) + self._tail, hint=_SPLIT
            )
            blocks = shared.blocks
            self._known += shared.tokens
            self._loaded += shared.loaded
        else:
            check_room(run, len(self._first), max(map(len, ids)) + self._tail)
            ids = [[*self._first, *one] for one in ids]
        self._read += time.perf_counter() - started
        answers = [Answer(question, None, "none", f"q{at}{suffix}") for at, question in enumerate(self._asked, 1)]
        passages = None
        if self._quote and part:
            passages = Passages(part, lambda words: quoted_ids(run, words), min(run.ends, default=0))
        jobs = [
            Job(answers[at].worker, partial(self._script, answers, at, passages), one, len(one) + self._tail)
            for at, one in enumerate(ids)
        ]
        await write_rows(run, blocks, jobs, most=self._most)
        return answers

    @property
    def _tail(self) -> int:
        return self._tokens + self._quote_room

    def _script(self, answers: list[Answer], at: int, passages: Passages | None, worker: Worker) -> Script:
        """One row: its question, then its answer into ``answers[at]``, then the sentence that supports it."""
        self._run.note("question", worker=worker.name, text=answers[at].question)
        yield (written := Piece(worker, tokens=self._tokens))
        answers[at] = answer = _answered(answers[at], written)
        self._run.note("answer", worker=worker.name, text=answer.text, finish=answer.finish)
        if passages is not None and is_stated(answer.text):
            worker.reopen(self._run.ends)  # the question for a quotation says what stands there
            worker.feed(self._quote)
            yield (chosen := Piece(worker, tokens=_QUOTE_TOKENS, choice=passages))
            if chosen.finish != "cut":
                words, places = passages.chosen(chosen.ids)
                self._run.note("quote", worker=worker.name, text=words)
                answers[at] = replace(
                    answer,
                    quote=_quote(words, places[0], places),
                    tokens=answer.tokens + len(chosen.ids),
                    ticks=answer.ticks + chosen.ticks,
                    seconds=answer.seconds + chosen.seconds,
                )

    async def _merged(self, found: Sequence[Sequence[Answer]]) -> list[Answer]:
        """One answer for each question: the only one that a part gave, or what a row makes of several."""
        run = self._run
        merged, jobs = [], []
        for at, answers in enumerate(found):
            stated = [answer for answer in answers if is_stated(answer.text)]
            texts = list(dict.fromkeys(str(answer.text) for answer in stated))
            best = stated[0] if stated else answers[0]
            took = replace(
                best,
                worker=f"q{at + 1}" if len(texts) > 1 else best.worker,
                tokens=sum(answer.tokens for answer in answers),
                ticks=sum(answer.ticks for answer in answers),
                seconds=sum(answer.seconds for answer in answers),
            )
            merged.append(took)
            if len(texts) > 1:
                listed = "\n".join(f"- {text}" for text in texts)
                rules = self._rules or MERGE_RULES
                words = MERGE.format(found=listed, rules=rules, question=answers[0].question)
                ids = [*self._first, *quoted_ids(run, words), *self._behind]
                jobs.append(Job(took.worker, partial(self._merge, merged, at, stated), ids, len(ids) + self._tokens))
        await write_rows(run, (), jobs, most=self._most)
        return merged

    def _merge(self, merged: list[Answer], at: int, stated: Sequence[Answer], worker: Worker) -> Script:
        """A last row: one answer of what the parts answered; its quotation is that of the answer most like it."""
        self._run.note("question", worker=worker.name, text=merged[at].question)
        yield (written := Piece(worker, tokens=self._tokens))
        if written.finish != "cut":
            words = set(written.text.split())
            like = max(stated, key=lambda answer: len(words & set(str(answer.text).split())))
            took = merged[at]
            answer = _answered(replace(took, quote=like.quote), written)
            more = (took.tokens + answer.tokens, took.ticks + answer.ticks, took.seconds + answer.seconds)
            merged[at] = replace(answer, tokens=more[0], ticks=more[1], seconds=more[2])
            self._run.note("answer", worker=worker.name, text=answer.text, finish=answer.finish)

    def _placed(self, answers: Sequence[Answer], parts: Sequence[Part]) -> list[Answer]:
        """Quotations that say the same are given the places where it stands one after the other, and their lines."""
        lines: dict[str, str] = {}
        for part in parts:
            for name, (text, start) in part.items():
                lines[name] = lines.get(name, "").ljust(start) + text
        used: dict[tuple[str, str], int] = {}
        placed = []
        for answer in answers:
            if (quote := answer.quote) is not None:
                key = (quote.document, quote.text)
                places = [(quote.start, quote.end), *quote.also]
                start, end = places[min(used.get(key, 0), len(places) - 1)]
                used[key] = used.get(key, 0) + 1
                also = tuple(place for place in places if place != (start, end))
                where = Document(quote.document, lines[quote.document]).place(start)
                answer = replace(answer, quote=replace(quote, start=start, end=end, also=also, place=where))
            placed.append(answer)
        return placed


def _answered(answer: Answer, written: Piece) -> Answer:
    """The answer with what was written. Raises where its worker has failed: what is there then is no answer."""
    if written.worker.failed is not None:
        raise written.worker.failed
    return replace(
        answer,
        text=written.text.strip() or None,
        finish=written.finish if written.finish in ("length", "loop", "cut") else "end",
        tokens=len(written.ids),
        ticks=written.ticks,
        seconds=written.seconds,
    )


def _quote(words: str, place: Place, places: Sequence[Place]) -> Quote:
    also = tuple((other.start, other.end) for other in places[1:] if other.document == place.document)
    return Quote(words, place.document, place.start, place.end, "", also)
