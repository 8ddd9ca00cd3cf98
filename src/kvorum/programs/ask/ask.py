"""Many questions of one text, answered side by side: the text is encoded once, every question is a row behind it.

    q1   [ documents ][ what questions begin with ][ own ]
    q2   [ documents ][ what questions begin with ][ own ]

Nobody sees anybody else, so an answer is the one that its question would get alone. ``docs/ask.md`` has figures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kvorum.errors import BadRequest
from kvorum.harness.asked import Answer, Asked
from kvorum.harness.rows import Job, Piece, Script, write_rows
from kvorum.harness.shared_text import check_room, quoted_ids, share_texts, turn_ids
from kvorum.programs.ask.text import RULES, question_text, shared_texts
from kvorum.runs.annotations import PositiveInt
from kvorum.runs.parameters import Value
from kvorum.runs.program import program
from kvorum.runs.run import Run

ROWS = 16
"""Questions that are answered at once, where nobody says how many."""


def row_names(workers: int | None, *, questions: Sequence[str] | None, **_: Value) -> list[str]:
    """q1, q2 and so on: as many as there are questions, at most ``ROWS`` unless ``workers`` says another number."""
    return [f"q{at + 1}" for at in range(min(len(questions or [""]), ROWS if workers is None else workers))]


def can_be_asked(
    workers: int, *, questions: Sequence[str] | None, documents: Mapping[str, str] | None, **_: Value
) -> None:
    """Raises BadRequest for an empty question or document."""
    for at, question in enumerate(questions or (), 1):
        if not question.strip():
            raise BadRequest(f"Question {at} is empty; leave it out.")
    for name, words in (documents or {}).items():
        if not words.strip():
            raise BadRequest(f"The document {name} is empty; leave it out.")


@program(
    "ask",
    "many questions of one text, answered side by side",
    workers=ROWS,
    exchange="independent",
    names=row_names,
    together=can_be_asked,
)
async def ask(
    run: Run,
    *,
    documents: Mapping[str, str] | None = None,
    questions: Sequence[str] | None = None,
    tokens: PositiveInt = 256,
    rules: str | None = None,
    remarks: Mapping[str, str] | None = None,
) -> str | None:
    """Answer every question from the documents; the result's ``product`` has each answer with its time.

    The number of workers says how many questions are answered at once, and changes no answer.

    Args:
        documents: The texts to answer from, by name; without any, the questions are asked of the model alone.
        questions: The questions; without any, the problem is the one question.
        tokens: The most tokens of an answer.
        rules: What every question is told of how to answer; by default briefly and from the text alone.
        remarks: What of a document could not be read, by its name; the model is told.
    """
    started, most = time.perf_counter(), len(run.workers)
    asked = list(questions or [run.task.prompt])
    told = RULES if rules is None and documents else rules or ""
    first, behind = turn_ids(run)
    ids = [[*quoted_ids(run, question_text(question, told)), *behind] for question in asked]
    room = max(map(len, ids)) + tokens
    texts = shared_texts(documents or {}, remarks or {})
    if texts:
        shared = await share_texts(run, texts, room=room)
        blocks, known, loaded = shared.blocks, shared.tokens, shared.loaded
    else:
        check_room(run, len(first), room)
        ids = [[*first, *one] for one in ids]
        blocks, known, loaded = (), 0, 0
    read = time.perf_counter() - started
    answers = [Answer(question, None, "none", f"q{at}") for at, question in enumerate(asked, 1)]
    jobs = [
        Job(answers[at].worker, _answer(run, answers, at, one, tokens), one, len(one) + tokens)
        for at, one in enumerate(ids)
    ]
    await write_rows(run, blocks, jobs, most=most)
    run.product = found = Asked(answers, known, loaded, read, dict(remarks or {}))
    return found.readable()


def _answer(run: Run, answers: list[Answer], at: int, ids: Sequence[int], tokens: int) -> Script:
    """One row: its question, then its answer into ``answers[at]``."""
    worker = answers[at].worker
    run.note("question", worker=worker, text=answers[at].question)
    written = yield Piece(ids, tokens)
    text = written.text.strip() or None
    answers[at] = replace(
        answers[at],
        text=text,
        finish=written.finish,
        tokens=written.tokens,
        ticks=written.ticks,
        seconds=written.seconds,
    )
    run.note("answer", worker=worker, text=text, finish=written.finish)
