"""What the model reads of a form. Each row holds what it is asked for, as the comment and the key of a JSON object.

That is the form that was both fast and right where several were measured (docs/fields.md): a list of all keys in the
shared part, with rows that hold their key alone, is half as long again and no better.
"""

from __future__ import annotations

import json

from kvorum.harness.forms.form import Field
from kvorum.jsontypes import Json

REQUEST = "Fill in this form from the text, as one JSON object. Write null where the text does not say."
OPENING = "```json\n{"
"""What the model has already said when a row begins."""

_MOST_OPTIONS = 24
_MOST_CHARS = 600


def shared(text: str) -> str:
    """The text as it stands before the request: as the program ``ask`` puts it, so that both keep one block of it."""
    return f"{text.rstrip()}\n\n"


def request(title: str) -> str:
    """What stands behind the text."""
    return f"{REQUEST}\nThe form: {title}" if title else REQUEST


def question(field: Field) -> str:
    """What a row begins with: the field's meaning as a comment, and its key up to the colon."""
    words = _meaning(field)
    comment = f" // {words}\n" if words else " "
    return f"{comment}{json.dumps(field.name, ensure_ascii=False)}:"


def _meaning(field: Field) -> str:
    leaf = field.leaf
    parts = [leaf.words[:_MOST_CHARS]] if leaf.words else []
    if field.item:
        parts = [f"{parts[0] if parts else field.path[-1]} ({field.item})"]
    if leaf.kind == "choice" and len(leaf.options) <= _MOST_OPTIONS:
        parts.append(f"one of {', '.join(map(_option, leaf.options))}")
    elif leaf.kind == "date":
        parts.append("YYYY-MM-DD")
    if field.null:
        parts = [*(parts or [str(field.path[-1]).replace("_", " ")]), "or null"]
    return ", ".join(parts)


def _option(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)
