"""Asking a model typed questions about a state, as part of a run: what the program `decide` does, for any program.

``await decide(run, view, questions)`` asks about what a view shows: has the team answered, does this repeat that, is it
time to speak. It writes to blocks of its own, so the view and all who see it stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, fsum
from typing import Literal, TypeAlias, TypedDict

from kvorum.harness.decisions.answers import Decision, log, softmax
from kvorum.harness.decisions.prompts import OrderBy, Prompt, Wording
from kvorum.harness.decisions.questions import Kind, Question, named, stages
from kvorum.harness.decisions.scoring import Scorer
from kvorum.harness.decisions.wire import state_text
from kvorum.jsontypes import Json
from kvorum.kv import Block, View
from kvorum.runs.run import Run

BLANKS = ("N/A", "[MASK]", "")
"""States that say nothing, as in "Calibrate Before Use" (arXiv 2102.09690): what a model answers then is its prior."""


State: TypeAlias = View | Block | Sequence[Block]
"""What is encoded already and may be asked about: a view, a block, or blocks one behind the other."""


def seen_or_read(state: State | Json) -> View | str:
    """What is encoded already as a view; anything else, also JSON, as a text."""
    if isinstance(state, View):
        return state
    parts = state if isinstance(state, Sequence) and not isinstance(state, str) else [state]
    blocks = [part for part in parts if isinstance(part, Block)]
    if blocks and len(blocks) == len(parts):
        return View(*blocks)
    return state_text(state)  # type: ignore[arg-type]  # it is JSON


class Way(TypedDict, total=False):
    """What of ``Asking`` decides which numbers a model gives."""

    orders: int
    order_by: OrderBy
    prior: bool


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are asked.

    ``orders``: in so many orders the options of a choice are listed, and the mean is taken; 0: they are not listed.
    ``order_by``: several orders are views over the same option blocks, or each is "encoded" anew. ``sees``: "earlier"
    tells every question the answers to all before it. ``prior``: divide by what is answered about states that say
    nothing. ``temperatures``: by kind of question; log-probabilities are divided by it, 1 changes nothing.
    """

    orders: int = 1
    order_by: OrderBy = "views"
    sees: Literal["none", "earlier"] = "none"
    prior: bool = False
    temperatures: Mapping[Kind, float] = field(default_factory=dict, hash=False)


async def decide(
    run: Run, state: State | str, questions: Sequence[Question | str], asking: Asking | None = None
) -> list[Decision]:
    """The answer to each question, in order; those that the budget left no room for are missing.

    ``state``: a text; or a view, or blocks one behind the other, as far as they are written now, behind which the
    questions stand as a user's words.

    Raises:
        BadRequest: a question cannot be asked, or does not fit in the context; it is named.
        OutOfPages: the cache has no room for one question; it is named.
    """
    asking = asking or Asking()
    asked = named(questions)
    if asking.sees == "earlier":
        names = [question.name for question in asked]
        asked = [replace(question, sees=names[:at]) for at, question in enumerate(asked)]
    session = _Session(run, seen_or_read(state), asking)
    for stage in stages(asked):
        await session.ask(stage, asked)
    return [session.found[question.name] for question in asked if question.name in session.found]


class _Session:
    """The questions about one state: how they are put, what was answered so far."""

    def __init__(self, run: Run, state: View | str, asking: Asking) -> None:
        self.run, self.asking = run, asking
        self.found: dict[str, Decision] = {}
        seen = isinstance(state, View)
        self._wording = Wording(run, behind=seen)
        base = state.fork(len(state)) if isinstance(state, View) else View()
        first = () if isinstance(state, View) else self._wording.state(state)
        self._scorer = Scorer(run, base, first, self._wording.ends)
        plain = Wording(run, behind=False)
        blanks = BLANKS if asking.prior else ()
        self._blanks = [(plain, Scorer(run, View(), plain.state(words), plain.ends)) for words in blanks]

    async def ask(self, stage: Sequence[Question], everyone: Sequence[Question]) -> None:
        """Ask questions that see no answers but those found already."""
        labels = {question: self.found[question.name].label for question in everyone if question.name in self.found}
        ready = [question for question in stage if all(name in self.found for name in question.sees)]
        priors = [await self._score(wording, scorer, ready, labels) for wording, scorer in self._blanks]
        scores = await self._score(self._wording, self._scorer, ready, labels)
        for at, question in enumerate(ready):
            known = [prior[at] for prior in priors]
            if scores[at] and all(known):
                decision = self._decision(question, scores[at], [line for lines in known for line in lines])
                self.found[question.name] = decision
                shares = {label: round(share, 6) for label, share in decision.shares.items()}
                self.run.note("decided", name=question.name, answer=decision.label, probabilities=shares)

    async def _score(
        self, wording: Wording, scorer: Scorer, questions: Sequence[Question], labels: Mapping[Question, str]
    ) -> list[list[list[float]]]:
        """Of each question the log-probabilities of its answers, in each order; none if the budget ended before."""
        prompts: list[Prompt] = []
        parts = []
        for question in questions:
            told = [wording.told(one, label) for one, label in labels.items() if one.name in question.sees]
            start = len(prompts)
            prompts += wording.prompts(question, told, self.asking.orders, self.asking.order_by)
            parts.append(slice(start, len(prompts)))
        scores = await scorer.score(prompts)
        return [scores[part] if part.stop <= len(scores) else [] for part in parts]

    def _decision(self, question: Question, lines: list[list[float]], blank: list[list[float]]) -> Decision:
        """What the log-probabilities of all orders, and of states that say nothing, come to."""
        plain = _mean([softmax(line) for line in lines])
        temperature = self.asking.temperatures.get(question.kind, 1.0)
        shares = plain
        if blank or temperature != 1.0:
            prior = _mean([softmax(line) for line in blank]) if blank else (1.0,) * len(plain)
            shares = softmax([(log(one) - log(other)) / temperature for one, other in zip(plain, prior, strict=True)])
        mass = fsum(exp(score) for line in lines for score in line) / len(lines)
        return Decision(question, shares, plain, mass, len(lines))


def _mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean of distributions."""
    return tuple(fsum(column) / len(rows) for column in zip(*rows, strict=True))
