"""How a question is put to a model: pieces of a prompt, always cut at the same places, and what may follow them.

Where a prompt is cut depends on the question alone, never on what else is asked. So pieces that several questions begin
with can be encoded once, and an answer is the same, bit for bit, in any company.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, TypeAlias

from kvorum.engine import text
from kvorum.harness.decisions.questions import Choice, Question, Score, YesNo
from kvorum.models.tokenizer import Tokenizer
from kvorum.runs.run import Run

OrderBy: TypeAlias = Literal["views", "encoded"]
Ids: TypeAlias = tuple[int, ...]

RULES = "You judge a text."
_PARAGRAPHS, _SENTENCES = 16, 3
"""Behind so many a question is cut at most, since each piece is a row and takes pages of its own."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One way to ask one question, behind a state.

    ``pieces``: what stands before, encoded piece behind piece; others may begin with the same ones. ``seen``: their
    places in the order in which they are seen. ``tail``: what comes last, and has the answer behind it. ``labels``:
    what may follow, each with its ids.
    """

    question: Question
    pieces: tuple[Ids, ...]
    seen: tuple[int, ...]
    tail: Ids
    labels: tuple[Ids, ...]

    @property
    def length(self) -> int:
        """Tokens behind the state, the longest answer included."""
        before = sum(map(len, self.pieces)) + len(self.tail)
        return before + max(map(len, self.labels))


class Wording:
    """Turns states and questions into ids for one model.

    ``behind``: the state is a view that somebody has written in, and the questions are a user's next words; otherwise
    they go on within the user's words that the state is, or begins.
    """

    def __init__(self, run: Run, *, behind: bool) -> None:
        self._tokenizer: Tokenizer | None = run.engine.tokenizer
        self.templated = bool(getattr(self._tokenizer, "chat_template", None))
        around = run.state.prompt(RULES)["around"]
        self._opening, self._closing = around
        self.lead: Ids = ()
        """What stands between a view and the first question."""
        if behind:
            opening, self._closing = run.state.prompt(None)["around"]
            self.lead = self._marks(opening)
        if not self.templated:
            self._closing = "\n\nAnswer:"
        line = text.encode(self._tokenizer, "\n")
        self.ends = sorted(run.ends | set(line)) if len(line) == 1 else sorted(run.ends)
        """The ids that end an answer: those that end a text, and the end of a line."""

    def state(self, words: str) -> Ids:
        """A state as text, from the beginning of the prompt to where a question begins."""
        special = not self.templated  # of which a template writes its own
        opening = text.encode(self._tokenizer, self._opening, special=special)
        return (*opening, *self._words(f"{words.strip()}\n\n" if words.strip() else ""))

    def told(self, question: Question, label: str) -> Ids:
        """An earlier question with its answer, for those that see it."""
        return self._words(f"Question: {question.text.strip()}\nAnswer: {label}\n\n")

    def prompts(self, question: Question, told: Sequence[Ids], orders: int, by: OrderBy) -> list[Prompt]:
        """The question in each order of its options; one prompt where there is but one, or they are not listed (0)."""
        listed = isinstance(question, Choice) and orders > 0
        *first, last = _parts(f" {question.text.strip()}")
        before = self._behind_lead(told, ["Question:", *first])
        closing, labels = self._marks(self._closing), self._labels(question)
        if not listed:
            tail = (*self._words(f"{last}{_meanings(question)}{_request(question)}"), *closing)
            return [Prompt(question, before, tuple(range(len(before))), tail, labels)]
        before = (*before, self._words(f"{last}\nAnswer with one of these options, word for word:\n"))
        pairs = zip(question.labels, question.answers, strict=True)
        lines = [self._words(_line(label, answer.description)) for label, answer in pairs]
        ways = orders_of(len(lines), orders)
        if by == "encoded" or len(ways) == 1:
            whole = [tuple(chain.from_iterable(lines[at] for at in way.seen)) for way in ways]
            return [Prompt(question, (*before, one), tuple(range(len(before) + 1)), closing, labels) for one in whole]
        found = []
        for way in ways:
            pieces = (*before, *(lines[at] for at in way.encoded))
            seen = (*range(len(before)), *(len(before) + way.encoded.index(at) for at in way.seen))
            found.append(Prompt(question, pieces, seen, closing, labels))
        return found

    def _behind_lead(self, told: Sequence[Ids], pieces: Sequence[str]) -> tuple[Ids, ...]:
        return tuple(piece for piece in (self.lead, *told, *map(self._words, pieces)) if piece)

    def _labels(self, question: Question) -> tuple[Ids, ...]:
        """The ids of each label as they follow the prompt, where words may be cut otherwise than alone."""
        before = list(self._marks(self._closing))
        blank = "" if self.templated else " "
        special = set(getattr(self._tokenizer, "all_special_ids", ()))
        found = []
        for label in question.labels:
            whole = list(self._marks(self._closing + blank + label))
            rest = whole[len(before) :]
            fits = rest and whole[: len(before)] == before and special.isdisjoint(rest)
            found.append(tuple(rest) if fits else self._words(blank + label))
        return tuple(found)

    def _words(self, words: str) -> Ids:
        """Words that come from outside: what is spelled like a special token is text."""
        return tuple(text.encode(self._tokenizer, words, split_special=True))

    def _marks(self, words: str) -> Ids:
        """What the chat template writes."""
        return tuple(text.encode(self._tokenizer, words))


@dataclass(frozen=True, slots=True)
class Order:
    """The options in the order in which they are ``encoded``, each seeing those before it, and that in which they are
    ``seen`` by what follows."""

    encoded: tuple[int, ...]
    seen: tuple[int, ...]


def orders_of(count: int, orders: int) -> list[Order]:
    """So many orders of ``count`` options, or all that there are of this kind: turns of the list, and each reversed.

    The list is encoded forwards for the turns, and backwards for the reversed ones. Turns are spread over the list, so
    that an option comes to stand early, in the middle and late. A turn and its reverse come together, so an even number
    of orders is the same set whether a list is given forwards or backwards.
    """
    turns = max(1, min(count, (orders + 1) // 2))
    forwards = tuple(range(count))
    found: dict[tuple[int, ...], Order] = {}
    for turn in range(turns):
        start = turn * count // turns
        seen = (*forwards[start:], *forwards[:start])
        found.setdefault(seen, Order(forwards, seen))
        if len(found) < orders:
            found.setdefault(seen[::-1], Order(forwards[::-1], seen[::-1]))
    return list(found.values())


def _parts(words: str) -> list[str]:
    """A question cut behind its first sentences and its blank lines, where other questions may have begun as it does.

    A blank that follows a sentence stays with the next one, as tokenizers join them.
    """
    *first, last = re.split(r"(?<=\n\n)(?=[^\n])", words, maxsplit=_PARAGRAPHS)
    sentences = re.split(r"(?<=[.?!:])(?= \S)", last, maxsplit=_SENTENCES)
    return [*first, *sentences]


def _request(question: Question) -> str:
    """What is asked for, behind a question that lists no options."""
    if isinstance(question, YesNo):
        return " Answer with Yes or No."
    return "\nAnswer with the number of a level." if isinstance(question, Score) else " Answer in a few words."


def _meanings(question: Question) -> str:
    """The answers that are described, each on a line, with what they mean; of a choice none."""
    if isinstance(question, Choice):
        return ""
    pairs = zip(question.labels, question.answers, strict=True)
    return "".join(f"\n{label}: {answer.description.strip()}" for label, answer in pairs if answer.description.strip())


def _line(label: str, description: str) -> str:
    return f"- {label}: {description.strip()}\n" if description.strip() else f"- {label}\n"
