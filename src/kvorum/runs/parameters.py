"""A program's parameters: what each may be, how it is checked, and how it is read from a command line.

They are declared by the keywords of the program's function (see ``annotations``), and everybody learns from them: the
checks of library, server and studies, the command line and its help, the page's form and the tables of the docs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kvorum.errors import BadRequest, UnknownName
from kvorum.jsontypes import Json

Kind = Literal["boolean", "integer", "number", "text", "list", "mapping", "program", "local"]
"""What a parameter is: a value of JSON, a program's name, or something that only Python can hand over."""

Value: TypeAlias = "Json | Callable[..., Json] | Sequence[Callable[..., Json]] | Mapping[str, Value]"
"""What a parameter can be given."""

_TEXT_AS_JSON = ("list", "mapping")
_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_WORDS: dict[Kind, str] = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a finite number",
    "text": "text",
    "list": "a list",
    "mapping": "a mapping",
    "program": "a program's name",
    "local": "given from Python",
}


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """The most that the network may put into parameters, at any depth of programs inside programs."""

    number: float = 1_000_000
    """The largest absolute value of a number."""
    text: int = 20_000
    """Characters of a text."""
    items: int = 64
    """Items of a list or a mapping."""
    workers: int = 16
    """Workers of a program that works inside another."""
    depth: int = 3
    """Programs inside one another, the outermost counted."""
    inside: int = 0
    """In how many others the program already is."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a program.

    ``items``: of what kind the items of a list or the values of a mapping are; a parameter of another kind with
    ``items`` may also be a list of such. ``optional``: it may be None.
    """

    name: str
    kind: Kind
    default: Value
    help: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    optional: bool = False
    local: bool = False
    items: Kind | None = None
    params_of: str | None = None

    def check(self, value: Value, remote: RemoteLimits | None = None) -> None:
        """Raises BadRequest for a value that is not of its kind, outside its bounds or beyond the limits, UnknownName
        for a word that is not among its choices."""
        if value is None and self.optional:
            return
        if remote is not None and self.local:
            raise BadRequest(f"{self.name} is given by whoever runs the program, not over the network.")
        if self.kind == "local":
            return
        if not self._fits(value):
            how = " in UTF-8" if isinstance(value, str) and not is_text(value) else ""
            raise BadRequest(f"{self.name}={_short(value)} must be {self.wanted()}{how}.")
        if self.choices and value not in self.choices:
            there = ", ".join(self.choices)  # all of them, for they are few
            raise UnknownName(f"There is no {self.name} {_short(value)}; there are: {there}.")
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int | float) and not self._within(number):
                raise BadRequest(f"{self.name}={_short(number)} must be {self.wanted()}.")
        if remote is not None:
            check_size(self.name, value, remote)

    def wanted(self) -> str:
        """What it must be, in words: its choices or its kind, with its bounds."""
        words = _WORDS[self.kind]
        if self.choices:
            words = f"one of {', '.join(word or repr(word) for word in self.choices)}"
        if self.low is not None and self.high is not None:
            words += f" from {self.low:g} to {self.high:g}"
        elif self.low is not None or self.high is not None:
            words += f" of at least {self.low:g}" if self.low is not None else f" of at most {self.high:g}"
        if self.items is not None:
            words += f" of {self.items}s" if self.kind in _TEXT_AS_JSON and self.items != "text" else ""
            words += "" if self.kind in _TEXT_AS_JSON else ", or a list of such"
        return words + (", or none" if self.optional else "")

    def as_dict(self) -> dict[str, Json]:
        """For JSON: all that a form or a table needs to show it. What only Python can hold has no default there."""
        shown = {name: _jsonlike(getattr(self, name)) for name in self.__slots__ if name != "params_of"}
        return shown | {"choices": list(self.choices) or None, "allowed": self.wanted()}

    def _fits(self, value: Value) -> bool:
        if isinstance(value, list | tuple) and (self.kind == "list" or self.items is not None):
            return self.kind != "mapping" and all(_is_one(part, self.items) for part in value)
        if self.kind == "mapping" and isinstance(value, Mapping):
            return all(_is_one(key, "text") and _is_one(part, self.items) for key, part in value.items())
        return _is_one(value, self.kind)

    def _within(self, number: float) -> bool:
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)


def parse_parameter(parameter: Parameter, text: str) -> Value:
    """``text``, from a command line, as what the parameter is; lists and mappings are read as JSON.

    Raises:
        BadRequest: the text is not of that kind, or only Python can give it. UnknownName: it is not among the choices.
    """
    if parameter.kind == "local":
        raise BadRequest(f"{parameter.name} holds functions; give it from Python.")
    try:
        value = _parsed(parameter, text)
    except (ValueError, KeyError):
        as_json = " in JSON" if parameter.kind in _TEXT_AS_JSON else ""
        raise BadRequest(f"{parameter.name}={text} must be {parameter.wanted()}{as_json}.") from None
    parameter.check(value)
    return value


def _parsed(parameter: Parameter, text: str) -> Value:
    """The value that ``text`` says. Raises ValueError, KeyError: it says none of that kind."""
    if parameter.optional and text.lower() == "none":
        return None
    if parameter.kind in ("text", "program"):
        return text
    if parameter.kind == "boolean":
        return _BOOLEANS[text.lower()]
    if parameter.kind in _TEXT_AS_JSON or text.lstrip().startswith("["):
        return read_json(text)
    return int(text) if parameter.kind == "integer" else float(text)


def read_json(text: str) -> Json:
    """The list or mapping that ``text`` is in JSON. Raises ValueError for anything else."""
    found: Json = json.loads(text)
    if not isinstance(found, list | dict):
        raise ValueError("no list or mapping")
    return found


def is_text(words: str) -> bool:
    """Whether a trace can hold it: no lone surrogates, which bytes of a command line can become."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_one(value: Value, kind: Kind | None) -> bool:
    if kind is None:
        return True
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    if kind in ("text", "program"):
        return isinstance(value, str) and is_text(value)
    if kind in ("integer", "number"):
        return isinstance(value, int) or (kind == "number" and isinstance(value, float) and math.isfinite(value))
    return isinstance(value, Mapping) if kind == "mapping" else isinstance(value, list | tuple)


def check_size(name: str, value: Value, limits: RemoteLimits, depth: int = 4) -> None:
    """Raises BadRequest for what is larger, longer or deeper than the network may send."""
    if not depth:
        raise BadRequest(f"The parameter {name} has lists or mappings in too many others.")
    if isinstance(value, str) and len(value) > limits.text:
        raise BadRequest(f"The parameter {name} must be at most {limits.text} characters long.")
    if isinstance(value, int | float) and not abs(value) <= limits.number:
        raise BadRequest(f"The parameter {name} must be within {limits.number:g}.")
    if isinstance(value, Mapping | list | tuple):
        if len(value) > limits.items:
            raise BadRequest(f"The parameter {name} must have at most {limits.items} values.")
        for part in (*value, *value.values()) if isinstance(value, Mapping) else value:
            check_size(name, part, limits, depth - 1)


def _jsonlike(value: Value) -> Json:
    """A default as JSON has it: lists for tuples, nothing for what it cannot hold."""
    if isinstance(value, list | tuple):
        return [_jsonlike(part) for part in value]
    return value if isinstance(value, bool | int | float | str) else None


def _short(value: Value) -> str:
    words = repr(value)
    return words if len(words) <= 80 else words[:77] + "..."


def as_json(value: Value) -> Json:
    """A parameter as JSON can hold it: functions, in lists too, by their names."""
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): as_json(part) for name, part in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(getattr(value, "__name__", type(value).__name__))
