"""What is known of a question once the model was asked: a probability for everything that may be answered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kvorum.engine.budget import Ledger
from kvorum.errors import UnknownName
from kvorum.harness.decisions.questions import Question, Value
from kvorum.wording import unknown


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one question.

    ``probabilities``: of each of ``question.answers``, in their order; they sum to 1. ``uncorrected``: the same before
    prior and temperature. ``mass``: the share of all that the model could have written which these answers are; near 0
    it would have said something else. ``orders``: over how many orders of the options this is the mean.
    """

    question: Question
    probabilities: tuple[float, ...]
    uncorrected: tuple[float, ...]
    mass: float
    orders: int = 1

    @property
    def name(self) -> str:
        """The question's name."""
        return self.question.name

    @property
    def best(self) -> int:
        """The place of the likeliest answer; of equal ones the first."""
        return self.probabilities.index(max(self.probabilities))

    @property
    def value(self) -> Value:
        """The likeliest answer's value, with its type: a bool of a yes-or-no question, a level's number of a score."""
        return self.question.answers[self.best].value

    @property
    def label(self) -> str:
        """The likeliest answer in words."""
        return self.question.labels[self.best]

    @property
    def shares(self) -> dict[str, float]:
        """The probability of each answer, by its words."""
        return dict(zip(self.question.labels, self.probabilities, strict=True))

    @property
    def yes(self) -> float:
        """The probability of the first answer: of Yes, where that is asked."""
        return self.probabilities[0]

    @property
    def score(self) -> float:
        """The expected place among the answers: of a score, its expected level, counted from 0."""
        return math.fsum(at * share for at, share in enumerate(self.probabilities))

    @property
    def margin(self) -> float:
        """How much likelier the likeliest answer is than the next; 1 where there is no other."""
        first, second = sorted([*self.probabilities, 0.0], reverse=True)[:2]
        return first - second

    @property
    def confidence(self) -> float:
        """(n max - 1) / (n - 1): 0 where all n answers are alike, 1 where one has it all, or there is no other.

        System One's own definition. It says how peaked the distribution is, not how often such an answer is right.
        """
        count = len(self.probabilities)
        return 1.0 if count == 1 else max(0.0, (count * max(self.probabilities) - 1) / (count - 1))


@dataclass(frozen=True, slots=True)
class Decisions:
    """The answers to the questions of one call: ``items``, in their order; by name as ``decisions["name"]``, or by
    place.

    ``ledger`` is what they took. Questions that a budget left no room for are not there; ``spent`` names the limit.
    """

    items: Sequence[Decision]
    ledger: Ledger = field(default_factory=Ledger)
    spent: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.items)

    def __getitem__(self, key: str | int) -> Decision:
        if isinstance(key, int):
            return self.items[key]
        for decision in self.items:
            if decision.name == key:
                return decision
        raise UnknownName(unknown("answer", key, [decision.name for decision in self.items]))


def softmax(scores: Sequence[float]) -> tuple[float, ...]:
    """Probabilities in proportion to the exponentials of ``scores``; a score may be minus infinity."""
    top = max(scores)
    if top == -math.inf:
        return (1 / len(scores),) * len(scores)
    weights = [math.exp(score - top) for score in scores]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def log(share: float) -> float:
    """The natural logarithm, minus infinity of 0."""
    return math.log(share) if share > 0 else -math.inf
