"""The words of ``ask``: how documents and questions are put to the model."""

from __future__ import annotations

from collections.abc import Mapping

RULES = "Answer from the text above alone, in one short sentence."


def shared_texts(documents: Mapping[str, str], remarks: Mapping[str, str]) -> dict[str, str]:
    """What all rows read, by document; one alone stands there without its name, so that it is known by its content."""
    found = {}
    for name, words in documents.items():
        heading = f"Document: {name}\n\n" if len(documents) > 1 else ""
        remark = f"\n\n(Missing in this text: {remarks[name]}.)" if remarks.get(name) else ""
        found[name] = f"{heading}{words.rstrip()}{remark}\n\n"
    return found


def question_text(question: str, rules: str) -> str:
    """A question as its row is told it, what all questions have in common first."""
    return f"{rules}\n\nQuestion: {question.strip()}" if rules else question
