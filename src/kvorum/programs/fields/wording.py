"""What the model reads of a form. Each row holds what it is asked for, as the comment and the key of a JSON object.

That is the form that was both fast and right where several were measured (docs/fields.md): a list of all keys in the
shared part, with rows that hold their key alone, is half as long again and no better.
"""

from __future__ import annotations

import json

from kvorum.harness.forms.form import Field
from kvorum.harness.forms.nodes import Leaf, Rows
from kvorum.harness.forms.records import key_of, written_first
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
    if field.rows is not None:
        return _records(field, field.rows) + (", or null" if field.null else "")
    words = _told(field.leaf)
    parts = [words] if words else []
    if field.item:
        parts = [f"{words or _called(field)} ({field.item})"]
    parts += _ways(field.leaf)
    if field.null:
        parts = [*(parts or [_called(field).replace("_", " ")]), "or null"]
    return ", ".join(parts)


def _records(field: Field, rows: Rows) -> str:
    """A record by what each of its leaves means: a sentence before a list has it written empty or with one record."""
    parts = []
    for names, leaf in written_first(rows).items():
        words = ", ".join(part for part in (_told(leaf), *_ways(leaf)) if part)
        parts.append(f"{json.dumps(key_of(names), ensure_ascii=False)}: {words or '...'}")
    return f"{rows.words or _called(field)}: [{{{', '.join(parts)}}}, ...]"


def _called(field: Field) -> str:
    return str(field.path[-1]) if field.path else field.name


def _told(leaf: Leaf) -> str:
    return leaf.words[:_MOST_CHARS]


def _ways(leaf: Leaf) -> list[str]:
    """How its values are written, where that is not plain."""
    if leaf.kind == "choice" and len(leaf.options) <= _MOST_OPTIONS:
        return [f"one of {', '.join(map(_option, leaf.options))}"]
    return ["YYYY-MM-DD"] if leaf.kind == "date" else []


def _option(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)
