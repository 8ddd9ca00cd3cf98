"""Finding the answer in what workers wrote, and making one say it when time is up.

Answers are boxed (``\\boxed{...}``), code (the last fenced Python block that parses), or the whole text. Model text is
parsed, never executed.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, TypeAlias

from kvorum.runs.annotations import Help
from kvorum.tasks.scoring import normalised

if TYPE_CHECKING:
    from kvorum.runs.run import Run
    from kvorum.runs.worker import Worker


@dataclass(frozen=True, slots=True)
class AnswerKind:
    """A form of answer: what the prompt asks for, the words that force it, and what the forced text begins with."""

    name: str
    request: str
    demand: str
    opening: str
    tokens: int


BOXED = AnswerKind(
    "boxed",
    "Put the final answer, and nothing else, inside \\boxed{}.",
    "\n\nTime is up, so here is the final answer: \\boxed{",
    "\\boxed{",
    64,
)
CODE = AnswerKind(
    "code",
    "Give the final program in one fenced ```python block.",
    "\n\nTime is up, so here is the final program:\n\n```python\n",
    "```python\n",
    1024,
)
TEXT = AnswerKind("text", "End with the complete answer.", "\n\nTime is up, so here is the complete answer: ", "", 256)

KINDS = {kind.name: kind for kind in (BOXED, CODE, TEXT)}


Answer: TypeAlias = Annotated[
    str, Help("The kind of answer: in a box, as a program, or the whole text.", choices=tuple(KINDS))
]
"""A program's parameter for it."""

FinalTokens: TypeAlias = Annotated[
    int | None, Help("The most tokens of an answer that is forced; by default as many as its kind takes.", low=1)
]
"""A program's parameter for ``force``."""


def extract(text: str, kind: AnswerKind) -> str | None:
    """The last answer of that kind in ``text``, or None. Texts of kind "text" answer only by being complete."""
    if kind is BOXED:
        return boxed(text)
    return code(text) if kind is CODE else None


def boxed(text: str) -> str | None:
    """The content of the rightmost complete ``\\boxed{...}`` that is not blank; braces may nest."""
    for match in reversed(list(re.finditer(r"\\boxed\s*\{", text))):
        depth = 1
        for at in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                content = text[match.end() : at].strip()
                if content.strip(". \t\n"):  # "\boxed{...}" in a plan is not an answer
                    return content
                break
    return None


def code(text: str) -> str | None:
    """The last fenced Python block that parses as Python."""
    for block in reversed(re.findall(r"```(?:python|py)?[ \t]*\n(.*?)```", text, flags=re.DOTALL)):
        if block.strip():
            try:
                ast.parse(block)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            return str(block).strip("\n")
    return None


def majority(answers: Collection[str]) -> str | None:
    """The commonest answer, compared as ``normalised``; the first given of them where there is a tie."""
    counts = Counter(map(normalised, answers))
    return max(answers, key=lambda answer: counts[normalised(answer)], default=None)


async def force(run: Run, worker: Worker, kind: AnswerKind, *, tokens: int | None = None) -> str:
    """Make ``worker`` answer now; see ``force_all``."""
    return (await force_all(run, [worker], kind, tokens=tokens))[worker.name]


async def force_all(
    run: Run, workers: Sequence[Worker], kind: AnswerKind, *, tokens: int | None = None
) -> dict[str, str]:
    """Make workers answer now, greedily, in at most ``tokens`` tokens each, from whatever their views show.

    The demand is fed behind what they have pending. These ticks are on the ledger and may go beyond the budget.
    """
    run.grace()
    begun: dict[str, int] = {}
    for worker in workers:
        if worker.pending and worker.pending[-1] in run.ends:
            worker.pending.pop()
            worker.picked = 0
        worker.feed(run.encode(kind.demand))
        worker.sampling = replace(worker.sampling, temperature=0.0, banned=())
        begun[worker.name] = len(worker.ids)
    said = dict.fromkeys(begun, "")
    todo = list(workers)
    for _ in range(tokens or kind.tokens):
        await run.tick(todo)
        for worker in list(todo):
            said[worker.name] = run.read(worker.ids[begun[worker.name] :])
            if worker.ids[-1] in run.ends or extract(kind.opening + said[worker.name], kind) is not None:
                todo.remove(worker)
        if not todo:
            break
    return {name: _read(text, kind) for name, text in said.items()}


def _read(said: str, kind: AnswerKind) -> str:
    """The answer in a forced text, complete or not."""
    whole = kind.opening + said
    found = extract(whole, kind) or extract(whole + "\n```", kind)
    if found is not None:
        return found
    return said.split("\n")[0].strip() if kind is BOXED else said.strip()
