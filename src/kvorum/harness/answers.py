"""Finding the answer in what workers wrote, and asking for one that nobody gave.

Answers are what a worker wrote (text), boxed (``\\boxed{...}``), code (the last fenced Python block that parses), or a
JSON value. Model text is parsed, never executed.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, TypeAlias

from kvorum.engine.budget import Ledger
from kvorum.runs.annotations import Help
from kvorum.runs.spending import Spent
from kvorum.tasks.scoring import normalised

if TYPE_CHECKING:
    from kvorum.runs.run import Run
    from kvorum.runs.worker import Worker


@dataclass(frozen=True, slots=True)
class AnswerKind:
    """A form of answer: what the prompt asks for, the most tokens of an answer that is asked for at the end, the words
    that ask for it, and what it begins with. Without such words what was written by then is the answer."""

    name: str
    request: str
    tokens: int
    demand: str = ""
    opening: str = ""


TEXT = AnswerKind("text", "", 256)
BOXED = AnswerKind(
    "boxed",
    "Put the final answer, and nothing else, inside \\boxed{}.",
    64,
    "\n\nSo the final answer is \\boxed{",
    "\\boxed{",
)
CODE = AnswerKind("code", "Give the final program in one fenced ```python block.", 1024)
JSON = AnswerKind("json", "Give the final answer as JSON in one fenced ```json block.", 1024)
KINDS = {kind.name: kind for kind in (TEXT, BOXED, CODE, JSON)}

_TIME = "\n\nTime is up, so here is the "
_FORMER = {
    "boxed": replace(BOXED, demand=f"{_TIME}final answer: \\boxed{{"),
    "code": replace(CODE, demand=f"{_TIME}final program:\n\n```python\n", opening="```python\n"),
    "text": replace(TEXT, request="End with the complete answer.", demand=f"{_TIME}complete answer: "),
}
"""As they were up to version 2 of the trace, whose runs are repeated with them."""

Answer: TypeAlias = Annotated[
    str, Help("The kind of answer: what was written, in a box, a program, or a JSON value.", choices=tuple(KINDS))
]
"""A program's parameter for it."""

FinalTokens: TypeAlias = Annotated[
    int | None, Help("The most tokens of an answer that is asked for at the end; by default by its kind.", low=1)
]
"""A program's parameter for ``force``."""


def kind_of(run: Run, answer: str, *, asks: bool = True) -> AnswerKind:
    """The kind of that name, in a replay as it was then; without ``asks`` nobody is asked for an answer at the end."""
    kind = _FORMER.get(answer, KINDS[answer]) if run.state.recording.version < 3 else KINDS[answer]
    return kind if asks else replace(kind, demand="")


def asks_for_answer(given: str) -> bool:
    """Whether the words that a worker was given end its own text: they ask for the answer."""
    return BOXED.demand.strip() in given or "Time is up, so here" in given


def extract(text: str, kind: AnswerKind) -> str | None:
    """The last answer of that kind in ``text`` that stands on its own, or None.

    A box, or a closed fence whose program or JSON value parses. Texts of kind "text" answer only by being complete.
    """
    if kind.name == "boxed":
        return boxed(text)
    if kind.name == "json":
        return next((block.strip() for block in reversed(_fenced(text, "json")) if _is_json(block)), None)
    return code(text) if kind.name == "code" else None


def read(text: str, kind: AnswerKind) -> str | None:
    """The answer in a text that goes on no more: all of a text, a program whose fence is still open.

    JSON is what is valid: what stands in a fence, the whole text, or the last object or list in it. Where an answer is
    asked for at the end, one that stands on its own.
    """
    if kind.name == "text":
        return text.strip() or None
    if (found := extract(text, kind)) is not None or kind.demand:
        return found
    if kind.name == "json":
        return _last_json(text)
    return _open_fence(text) if kind.name == "code" else None


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
    for block in reversed(_fenced(text, "python|py")):
        if block.strip():
            try:
                ast.parse(block)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            return block.strip("\n")
    return None


def _open_fence(text: str) -> str | None:
    """What stands behind the last fence, if that is open and says Python or nothing."""
    opened = re.search(r"```(?:python|py)?[ \t]*\n((?:(?!```).)*)\Z", text, flags=re.DOTALL)
    return opened[1].strip("\n") or None if opened and text.count("```") % 2 else None


def _fenced(text: str, names: str) -> list[str]:
    """What stands in closed fences that say one of these names, or nothing."""
    return re.findall(rf"```(?:{names})?[ \t]*\n(.*?)```", text, flags=re.DOTALL)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse)
_BRACKET = re.compile(r"[{\[]")


def _is_json(text: str) -> bool:
    try:
        _decoder.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _last_json(text: str) -> str | None:
    """The whole text if it is JSON, else the last of the outermost objects and lists in it."""
    if _is_json(text):
        return text.strip()
    found, at = None, 0
    while match := _BRACKET.search(text, at):
        try:
            _, at = _decoder.raw_decode(text, match.start())
            found = text[match.start() : at]
        except (ValueError, RecursionError):
            at = match.end()
    return found


def decided(answers: Collection[str], waiting: int) -> bool:
    """Whether the commonest of the answers stays the commonest, however ``waiting`` others still answer."""
    counts = [count for _, count in Counter(map(normalised, answers)).most_common(2)]
    return bool(counts) and counts[0] > sum(counts[1:]) + waiting


def majority(answers: Collection[str]) -> str | None:
    """The commonest answer, compared as ``normalised``; the first given of them where there is a tie."""
    counts = Counter(map(normalised, answers))
    return max(answers, key=lambda answer: counts[normalised(answer)], default=None)


def closing(run: Run, kind: AnswerKind, tokens: int | None = None, *, workers: int = 1) -> Ledger:
    """What ``force_all`` costs at most, for ``Run.work``; nothing where nobody is asked."""
    if not kind.demand:
        return Ledger()
    most = tokens or kind.tokens
    return Ledger(ticks=most, decoded=most * workers, prefill=len(run.encode(kind.demand)) * workers)


async def force(run: Run, worker: Worker, kind: AnswerKind, *, tokens: int | None = None) -> str | None:
    """Have ``worker`` answer now; see ``force_all``."""
    return (await force_all(run, [worker], kind, tokens=tokens))[worker.name]


async def force_all(
    run: Run, workers: Sequence[Worker], kind: AnswerKind, *, tokens: int | None = None
) -> dict[str, str | None]:
    """What workers answer that have given no answer of their own accord.

    Where the kind has words that ask for one, these are fed behind what they have pending, and they answer greedily, in
    at most ``tokens`` tokens each, from whatever their views show; these ticks are on the ledger and spend what is left
    of the budget. Where that ends first, and where nobody is asked, the answer is what they have written so far, and
    the run's outcome is "cut".
    """
    if not kind.demand:
        run.outcome = "cut"
        return {worker.name: read(worker.text, kind) for worker in workers}
    run.force()
    begun: dict[str, int] = {}
    for worker in workers:
        worker.reopen(run.ends)
        worker.feed(run.encode(kind.demand))
        worker.sampling = replace(worker.sampling, temperature=0.0, banned=())
        begun[worker.name] = len(worker.ids)
    said = dict.fromkeys(begun, "")
    todo = list(workers)
    for _ in range(tokens or kind.tokens):
        try:
            await run.tick(todo)
        except Spent:
            run.outcome = "cut"
            break
        for worker in list(todo):
            said[worker.name] = run.read(worker.ids[begun[worker.name] :])
            if worker.ids[-1] in run.ends or extract(kind.opening + said[worker.name], kind) is not None:
                todo.remove(worker)
        if not todo:
            break
    return {name: _asked(text, kind) for name, text in said.items()}


def _asked(said: str, kind: AnswerKind) -> str:
    """The answer in a text that was asked for, complete or not."""
    whole = kind.opening + said
    found = extract(whole, kind) or extract(whole + "\n```", kind)
    if found is not None:
        return found
    return said.split("\n")[0].strip() if kind.name == "boxed" else said.strip()
