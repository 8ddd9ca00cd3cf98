"""Questions of texts and what became of them: the product of a program that answers many questions at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from kvorum.harness.documents import Document
from kvorum.jsontypes import JsonObject


@dataclass(frozen=True, slots=True)
class Quote:
    """A passage that supports an answer, in the document's own words: ``text == document[start:end]``.

    ``place``: where it stands, for people, as "line 12"; a PDF's page, where whoever read the file says so. ``also``:
    where else in the document the same stands.
    """

    text: str
    document: str
    start: int
    end: int
    place: str
    also: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One question and its answer. ``text`` None: there is none.

    ``finish``: "end"; "length" where it was cut at the most tokens; "loop" where it went on in circles; "cut" where the
    run's budget ended it; "none" where it never began. ``worker``: who wrote it. ``tokens``, ``ticks``: what it took;
    ``seconds``: the time from its question's first token to its last.
    """

    question: str
    text: str | None
    finish: str
    worker: str
    tokens: int = 0
    ticks: int = 0
    seconds: float = 0.0
    quote: Quote | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """All answers, in the order of the questions.

    ``tokens``: of the documents; ``loaded`` of them were kept from before; ``seconds``: the time for reading or loading
    them, until the first question began. ``remarks``: what of a document could not be read, by its name.
    """

    answers: Sequence[Answer]
    tokens: int
    loaded: int
    seconds: float
    remarks: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every question has an answer."""
        return all(answer.text is not None for answer in self.answers)

    def as_dict(self) -> JsonObject:
        """For JSON."""
        found: JsonObject = asdict(self)
        return found

    def readable(self) -> str | None:
        """The answers for people; one alone as it is. None: there is no answer at all."""
        if not any(answer.text is not None for answer in self.answers):
            return None
        if len(self.answers) == 1:
            return self.answers[0].text
        texts = (f"{answer.question}\n{answer.text or 'no answer'}" for answer in self.answers)
        return "\n\n".join(texts)


def placed(asked: Asked, documents: Mapping[str, Document]) -> Asked:
    """The same with quotes placed as their documents say: by page where they have pages."""
    answers = []
    for answer in asked.answers:
        if (quote := answer.quote) is not None:
            answer = replace(answer, quote=replace(quote, place=documents[quote.document].place(quote.start)))
        answers.append(answer)
    return replace(asked, answers=answers)
