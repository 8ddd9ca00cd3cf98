"""kvorum in a comparison of whole jobs: its own programs, all rows at once and one by one."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kvorum.api import Engine
from kvorum.bench.fanout.jobs import TOKENS, TRUE, Form, Questions, Statements
from kvorum.bench.fanout.peer import Replies
from kvorum.engine.row import Row
from kvorum.engine.text import chat
from kvorum.jsontypes import Json
from kvorum.kv import View
from kvorum.sampling.sampling import Sampling
from kvorum.store.kept_blocks import KeptBlocks


class Ours:
    """An engine, and a folder in which the texts are kept encoded."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self._kept = engine, KeptBlocks(folder)
        self._full = Sampling(banned=tuple(sorted(engine.ends)))
        """Greedy, and no answer ends before it has its length."""

    def ask(self, job: Questions, *, rows: int | None, cold: bool = False) -> Replies:
        """All questions; ``cold``: the text is encoded first, else it is kept from before."""
        questions = [fact.question for fact in job.facts]
        kept = None if cold else self._kept

        def answer() -> list[str]:
            asked = self.engine.ask(job.text, questions, tokens=TOKENS, rows=rows, kept=kept, sampling=self._full)
            return [found.text or "" for found in asked.answers]

        return _timed(answer)

    def first_answer(self, job: Questions, *, cold: bool) -> float:
        """Seconds from the loaded model to the first token of one question's answer."""
        question, kept = job.facts[0].question, None if cold else self._kept
        return _timed(lambda: [str(self.engine.ask(job.text, question, tokens=1, kept=kept).answers[0].text)]).seconds

    def keep_text(self, job: Form) -> Path:
        """A new folder in which the form's text is kept, and none of its questions: another form was filled from it."""
        folder = Path(tempfile.mkdtemp(dir=self._kept.folder))
        other: dict[str, Json] = {"description": "a heading", "properties": {"heading": {"type": "string"}}}
        self.engine.fields(job.text, {"type": "object", **other}, kept=KeptBlocks(folder))
        return folder

    def fields(self, job: Form, folder: Path, *, rows: int | None) -> Replies:
        """The whole form, with what ``folder`` keeps of it."""

        def fill() -> list[str]:
            kept = KeptBlocks(folder)
            return [json.dumps(self.engine.fields(job.text, dict(job.schema), rows=rows, kept=kept).value)]

        return _timed(fill)

    def state(self, job: Statements) -> View:
        """The statements' text, encoded as what a user has said."""
        block = self.engine.block("state")
        ids = chat(self.engine.tokenizer, [{"role": "user", "content": job.text}])
        for start in range(0, len(ids), self.engine.prefill_chunk):
            self.engine.forward([Row(View(block), ids=ids[start : start + self.engine.prefill_chunk])])
        return View(block)

    def decide(self, job: Statements, state: View, *, together: bool) -> Replies:
        """All statements about the encoded text."""
        asked = [TRUE + said for said in job.said]

        def decide() -> list[str]:
            parts = [asked] if together else [[one] for one in asked]
            return ["yes" if found.value else "no" for part in parts for found in self.engine.decide(state, part)]

        return _timed(decide)


def _timed(job: Callable[[], Sequence[str]]) -> Replies:
    started = time.perf_counter()
    texts = job()
    return Replies(time.perf_counter() - started, texts)
