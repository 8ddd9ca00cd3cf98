"""Many questions of one text, answered side by side: the text is encoded once, every question is a row behind it.

    q1   [ documents ][ what questions begin with ][ own ]
    q2   [ documents ][ what questions begin with ][ own ]

Nobody sees anybody else, so an answer is the one that its question would get alone. ``docs/ask.md`` has figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvorum.errors import BadRequest
from kvorum.programs.ask.parts import cut_texts, whole
from kvorum.programs.ask.reading import Reading
from kvorum.runs.annotations import PositiveInt
from kvorum.runs.loops import OnLoop
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
    own_tasks=True,
    channels={"none": {}},
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
    quote: bool = False,
    split: bool = False,
    remarks: Mapping[str, str] | None = None,
    loops: OnLoop = "end",
) -> str | None:
    """Answer every question from the documents; the result's ``product`` has each answer with its time.

    The number of workers says how many questions are answered at once, and changes no answer.

    Args:
        documents: The texts to answer from, by name; without any, the questions are asked of the model alone.
        questions: The questions; without any, the problem is the one question.
        tokens: The most tokens of an answer.
        rules: What every question is told of how to answer; by default briefly and from the text alone.
        quote: Each answer with a sentence of the documents that supports it, in their own words, and its place.
        split: Documents that are too long are read in parts; what the parts answer is put together.
        remarks: What of a document could not be read, by its name; the model is told.
    """
    run.loops = loops
    asked = list(questions or [run.task.prompt])
    reading = Reading(run, asked, tokens, rules, quote, most=len(run.workers))
    run.dismiss_workers()
    texts = dict(documents or {})
    parts = cut_texts(run, texts, reading.room) if split and texts else [whole(texts)]
    run.product = found = await reading.read(parts, remarks or {})
    return found.readable()
