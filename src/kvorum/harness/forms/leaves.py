"""How a leaf is written, as a grammar, and what a row that wrote it has said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from kvorum.harness.forms.nodes import Leaf
from kvorum.harness.forms.numbers import Numbers
from kvorum.harness.forms.plain_schema import Plain, without_words
from kvorum.jsontypes import Json

FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"])
"""The formats that a grammar keeps; others only tell something."""

_NOTHING = re.compile(
    r"(null|none|nil|nan|n\.?/?a\.?|undefined|unknown|\?+|-*|not? (specified|stated|given|mentioned|provided|available|"
    r"known|applicable|found|said|in the text))\.?",
    re.IGNORECASE,
)
_NO_NULL = r"^(n?|nu|nul|([^n]|n[^u]|nu[^l]|nul[^l])(.|\n)*)$"
_ENDS = {True: r"TAIL: /[,\n}]/", False: 'TAIL: ","'}
"""What ends a value, the last one or not: without it a number could only go on, or end the whole text, which no model
wants there."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a row has said of a leaf. ``null``: that there is no value; ``misfit``: it has said one that the schema does
    not have, so that ``null`` stands for it. ``note``: what a reader should know; "" for nothing."""

    value: Json = None
    null: bool = False
    misfit: bool = False
    note: str = ""


UNSAID = Said(null=True, misfit=True, note="it was not filled before the budget was used up")
"""What stands for a leaf that nobody came to."""


class Source:
    """The text that a form is filled from."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def numbers(self) -> Numbers:
        """Its numbers."""
        return Numbers(self.text)

    def says(self, words: str) -> bool:
        """Whether the words stand in it as they are; ``null`` does not stand in ``null-7``."""
        return bool(words) and re.search(rf"(?<![\w-]){re.escape(words)}(?![\w-])", self.text) is not None


def rules_as_written(leaf: Leaf, source: Source) -> Plain:
    """The schema of what a row writes for the leaf: for numbers a text, as the source writes them."""
    number: Plain = {"type": "string", "pattern": f"^{source.numbers.pattern}$"}
    if leaf.kind == "number":
        return number
    if leaf.kind == "numbers":
        return {"type": "array", "items": number, **_lengths(leaf.rules)}
    if leaf.kind == "choice":
        return {"enum": list(leaf.options)}
    rules = without_words(leaf.rules)
    assert isinstance(rules, Mapping)
    found = {name: rule for name, rule in rules.items() if name != "uniqueItems"}  # it is kept when it is read
    if found.get("format") not in FORMATS:
        found.pop("format", None)
    return found


def without_null_words(written: Plain, source: Source) -> Plain:
    """The rules of what a row writes, with texts that do not begin with the word null, unless the source has it: where
    there must be a text, a model writes it in place of JSON's null."""
    return written if "null" in source.text.casefold() else _without_null_words(written)


def _without_null_words(rules: Plain) -> Plain:
    if rules.get("type") == "string" and not {"pattern", "format", "enum", "const"} & set(rules):
        return {**rules, "pattern": _NO_NULL}
    found = dict(rules)
    for name in ("items", "additionalProperties"):
        if isinstance(inner := found.get(name), Mapping):
            found[name] = _without_null_words(dict(inner))
    for name in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(inner := found.get(name), list):
            found[name] = [_without_null_words(one) if isinstance(one, dict) else one for one in inner]
    if isinstance(inner := found.get("properties"), Mapping):
        found["properties"] = {
            key: _without_null_words(dict(one)) if isinstance(one, Mapping) else one for key, one in inner.items()
        }
    return found


def grammar_of(written: Plain, *, null: bool, last: bool = True) -> str:
    """What a row may write under these rules behind a key and its colon, in llguidance's Lark. ``last``: whether it may
    end the whole object."""
    rules = {**written, "x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}
    either = '" null" TAIL | ' if null else ""
    return f'start: {either}" " value TAIL\nvalue: %json {json.dumps(rules)}\n{_ENDS[last]}\n'


def read_value(written: str) -> tuple[Json, bool]:
    """The JSON value at the beginning of what a row has written, and whether it is complete.

    A number is complete where something else follows. What was cut off is closed where it can be.
    """
    text = written.lstrip(" ")
    try:
        value, end = json.JSONDecoder().raw_decode(text)
        return value, end < len(text) or not isinstance(value, int | float) or isinstance(value, bool)
    except ValueError:
        return None, False


def closed(written: str) -> Json:
    """The value of a text or list of texts that was cut off: as far as it was written. None: there is no telling."""
    text = written.strip(" ")
    for end in ('"', '"]', "]"):
        for cut in (text, text.rstrip("\\"), text[: max(text.rfind('",') + 1, 0)]):
            try:
                found: Json = json.loads(cut + end)
            except ValueError:
                continue
            return found
    return None


def understood(leaf: Leaf, value: Json, source: Source, *, null: bool) -> Said:
    """What a row that wrote ``value`` has said. ``null``: whether it could have said null."""
    if value is None:
        return Said(null=True)
    if leaf.kind == "number":
        return _number(leaf, str(value), source, null=null)
    if leaf.kind == "numbers" and isinstance(value, list):
        said = [_number(leaf, str(one), source, null=null) for one in value]
        note = next((one.note for one in said if one.note), "")
        return Said([one.value for one in said], any(one.null for one in said), any(one.misfit for one in said), note)
    if leaf.kind == "choice" and type(value) is int:
        return _whole(value, source)
    if (
        isinstance(value, str)
        and leaf.kind in ("text", "date")
        and _NOTHING.fullmatch(value)
        and not source.says(value)
    ):
        return Said(null=True) if null else Said(value, note="the text does not seem to say it")
    if leaf.kind == "date" and isinstance(value, str):
        return Said(value, note=_date_note(value, source))
    if leaf.rules.get("uniqueItems") is True and isinstance(value, list):
        value = unique(value)
    return Said(value)


def unique(values: list[Json]) -> list[Json]:
    """The values without those that come again."""
    marks = [json.dumps(value, sort_keys=True) for value in values]
    return [value for at, value in enumerate(values) if marks[at] not in marks[:at]]


def _lengths(rules: Plain) -> Plain:
    return {name: rules[name] for name in ("minItems", "maxItems") if name in rules}


def _number(leaf: Leaf, written: str, source: Source, *, null: bool) -> Said:
    reading = source.numbers.read(written)
    if reading is None:
        if null:
            return Said(null=True)
        return Said(null=True, misfit=True, note=f"{written!r} is no number")
    whole = leaf.rules.get("type", leaf.rules.get("items")) in ("integer", {"type": "integer"})
    value, other = reading.value, reading.other
    if whole and other is not None:  # only one of the two can be meant
        value, other = value if value == int(value) else other, None
    if whole and value != int(value):
        return Said(null=True, misfit=True, note=f"{value} is no whole number, which the schema wants")
    if torn := source.numbers.torn(value):
        return Said(null=True, misfit=True, note=f"{value} was written, and the text has {torn}")
    note = f"{written} was read as {value}, and could be {other}" if other is not None else ""
    if cut := whole and source.numbers.cut(value):
        note = f"the text has {cut}"
    return Said(value, note=note)


def _whole(value: int, source: Source) -> Said:
    cut = source.numbers.cut(value)
    return Said(value, note=f"the text has {cut}" if cut else "")


def _date_note(value: str, source: Source) -> str:
    """What of a date does not stand in the text."""
    year, month, day = value[:4], value[5:7], value[8:10]
    if year + month + day in source.text or value in source.text:
        return ""
    if not re.search(rf"(?<![0-9]){year}(?![0-9])", source.text):
        return f"the text has no year {year}"
    found = re.search(rf"(?<![0-9])0?{int(day)}(?![0-9])", source.text) if day.isdigit() else None
    return "" if found else f"the text has no day {int(day) if day.isdigit() else day}"
