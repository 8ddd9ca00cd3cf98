"""The words of ``ask``: how documents and questions are put to the model."""

from __future__ import annotations

RULES = "Answer from the text above alone, in one short sentence."
PART_RULES = f"{RULES} The text is a part of a longer one; if it does not say, answer: Not stated."
MERGE = "Here is what was found in the parts of a text about a question.\n\n{found}\n\n{rules}\n\nQuestion: {question}"
MERGE_RULES = "Answer the question from what was found, in one short sentence."
QUOTE = "Copy the sentence of the text that says so, word for word."


def question_text(question: str, rules: str) -> str:
    """A question as its row is told it, what all questions have in common first."""
    return f"{rules}\n\nQuestion: {question.strip()}" if rules else question


def is_stated(text: str | None) -> bool:
    """Whether an answer from a part of a text says anything."""
    return bool(text) and not str(text).casefold().lstrip(" \"'*").startswith("not stated")
