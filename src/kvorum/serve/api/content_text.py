"""Contents of messages as text: text itself, or the parts that OpenAI's APIs have, of which text and JSON are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from kvorum.jsontypes import Json
from kvorum.serve.errors import ApiError

_TEXTS = ("text", "input_text", "output_text", "summary_text", "reasoning_text")


def content_text(content: Json, place: str) -> str:
    """The text of a content; ``place`` is where it stands in the request. Raises ApiError for what is no text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        raise ApiError(400, f"{place} must be text, or a list of parts.", param=place)
    return "".join(_part(part, f"{place}.{at}") for at, part in enumerate(content))


def _part(part: Json, place: str) -> str:
    if not isinstance(part, Mapping):
        raise ApiError(400, f"{place} must be a part: an object with a type.", param=place)
    kind, words = part.get("type"), part.get("text")
    if kind in _TEXTS and isinstance(words, str):
        return words
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    if kind == "input_json" and "data" in part:
        return json.dumps(part["data"], ensure_ascii=False)
    raise ApiError(400, f"{place} is of type {str(kind)[:40]!r}: only parts of text are read here.", param=place)
