"""A program's parameters: its typed keywords, read once, from which everybody learns what they may be.

``Annotated[Literal["a", "b"], Help("One sentence.")] = "a"`` declares a parameter; from it come the checks of library,
server and studies, the command line and its help, the page's form and the table of the docs. A keyword whose type JSON
cannot hold (functions, objects) is local, as is one that says so: it is given from Python or by the person at the
machine, never over the network.
"""

from __future__ import annotations

import inspect
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ForwardRef, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from kvorum.errors import BadRequest, UnknownName
from kvorum.jsontypes import Json

Kind = Literal["boolean", "integer", "number", "text", "list", "mapping", "program", "local"]
"""What a parameter is: a value of JSON, a program's name, or something that only Python can hand over."""

Value: TypeAlias = "Json | Callable[..., Json] | Sequence[Callable[..., Json]] | Mapping[str, Value]"
"""What a parameter can be given."""

_PLAIN: dict[type, Kind] = {bool: "boolean", int: "integer", float: "number", str: "text"}
_TEXT_AS_JSON = ("list", "mapping")
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
class Help:
    """What stands beside a keyword's type: one plain sentence, and what the type cannot say.

    ``low`` and ``high`` bound a number, ends included. ``choices``: the words that a text may be, where a table has
    them; otherwise a Literal says so. ``local``: it reaches files, code or a stand-in for the model,
    and is never taken from the network. ``program``: its text names a program, which works inside this one ("": none).
    ``params_of``: it holds the parameters of the program that the keyword of this name names, and its ``workers``.
    """

    text: str
    low: float | None = None
    high: float | None = None
    choices: Sequence[str] = ()
    local: bool = False
    program: bool = False
    params_of: str | None = None


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
        words = (
            f"one of {', '.join(word or repr(word) for word in self.choices)}" if self.choices else _WORDS[self.kind]
        )
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
        return {
            "name": self.name,
            "kind": self.kind,
            "default": None if self.kind == "local" else _jsonlike(self.default),
            "choices": list(self.choices) or None,
            "low": self.low,
            "high": self.high,
            "optional": self.optional,
            "items": self.items,
            "local": self.local,
            "help": self.help,
        }

    def _fits(self, value: Value) -> bool:
        if self.kind == "list" or (
            self.items is not None and self.kind != "mapping" and isinstance(value, list | tuple)
        ):
            return isinstance(value, list | tuple) and all(_is_one(part, self.items) for part in value)
        if self.kind == "mapping" and isinstance(value, Mapping):
            return all(isinstance(key, str) and _is_one(part, self.items) for key, part in value.items())
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
    value = _parsed(parameter, text)
    parameter.check(value)
    return value


def _parsed(parameter: Parameter, text: str) -> Value:
    wrong = BadRequest(f"{parameter.name}={text} must be {parameter.wanted()}.")
    if parameter.optional and text.lower() == "none":
        return None
    if parameter.kind == "boolean":
        word = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
        if text.lower() not in word:
            raise wrong
        return word[text.lower()]
    if parameter.kind in ("text", "program"):
        return text
    try:
        if parameter.kind in _TEXT_AS_JSON or text.lstrip().startswith("["):
            return read_json(text)
        return int(text) if parameter.kind == "integer" else float(text)
    except ValueError:
        raise wrong from None


def read_json(text: str) -> Json:
    """The list or mapping that ``text`` is in JSON. Raises ValueError for anything else."""
    found: Json = json.loads(text)
    if not isinstance(found, list | dict):
        raise ValueError("no list or mapping")
    return found


def parameters_of(function: Callable[..., object], name: str) -> tuple[Parameter, ...]:
    """The keywords of a program's function, in order; ``name`` is the program's.

    Raises:
        BadRequest: a keyword has no default, or its type names something that its module does not have.
    """
    keywords = list(inspect.signature(function).parameters.values())[1:]
    hints = {keyword.name: keyword.annotation for keyword in keywords if keyword.annotation is not keyword.empty}
    scope = {"Sequence": Sequence, "Mapping": Mapping, "Json": Json} | getattr(function, "__globals__", {})
    try:
        found = get_type_hints(types.SimpleNamespace(__annotations__=hints), scope, include_extras=True)
    except NameError as error:
        raise BadRequest(f"The parameters of {name} have a type that its module does not import: {error}.") from error
    for keyword in keywords:
        if keyword.default is keyword.empty:
            raise BadRequest(f"The parameter {keyword.name} of {name} needs a default.")
    return tuple(_parameter(keyword.name, found.get(keyword.name), keyword.default) for keyword in keywords)


@dataclass(slots=True)
class _Type:
    """A type taken apart."""

    kinds: list[Kind] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    items: Kind | None = None
    optional: bool = False
    help: Help = field(default_factory=lambda: Help(""))


def _parameter(name: str, hint: object, default: Value) -> Parameter:
    known = _read_type(hint)
    told = known.help
    plain = [kind for kind in known.kinds if kind not in _TEXT_AS_JSON]
    kind: Kind = "local"
    if "local" not in known.kinds and len(known.kinds) == 1:
        kind = known.kinds[0]
    elif len(plain) == 1 and "list" in known.kinds and len(known.kinds) == 2 and plain[0] == known.items:
        kind = plain[0]
    elif set(known.kinds) == {"integer", "number"}:
        kind = "number"
    if told.program:
        kind = "program"
    return Parameter(
        name=name,
        kind=kind,
        default=default,
        help=told.text,
        choices=tuple(known.choices) or tuple(told.choices),
        low=told.low,
        high=told.high,
        optional=known.optional or default is None,
        local=told.local or kind == "local",
        items=known.items,
        params_of=told.params_of,
    )


def _read_type(hint: object) -> _Type:
    """What an annotation allows; a part that JSON cannot hold makes it local."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        found = _read_type(parts[0])
        found.help = next((part for part in parts[1:] if isinstance(part, Help)), found.help)
        return found
    if origin in (Union, types.UnionType):
        read = [_read_type(part) for part in parts]
        return _Type(
            [kind for part in read for kind in part.kinds],
            [word for part in read for word in part.choices],
            next((part.items for part in read if part.items is not None), None),
            any(part.optional for part in read),
            next((part.help for part in read if part.help.text), Help("")),
        )
    if origin is Literal and all(part is None or isinstance(part, str) for part in parts):
        return _Type(["text"], [part for part in parts if part is not None], optional=None in parts)
    if hint is None or hint is types.NoneType:
        return _Type(optional=True)
    if isinstance(hint, type) and hint in _PLAIN:
        return _Type([_PLAIN[hint]])
    for base, kind in ((Mapping, "mapping"), (Sequence, "list")):
        if isinstance(origin or hint, type) and issubclass(origin or hint, base):  # type: ignore[arg-type]
            inner = [part for part in parts[-1:] if part is not ...] or list(parts[:1])
            return _of_items("mapping" if kind == "mapping" else "list", inner)
    return _Type(["local"])


def _of_items(kind: Kind, inner: Sequence[object]) -> _Type:
    if not inner or isinstance(inner[0], str | ForwardRef):  # the type of JSON, which refers to itself
        return _Type([kind])
    kinds = _read_type(inner[0]).kinds
    return _Type(["local"]) if "local" in kinds else _Type([kind], items=kinds[0] if len(kinds) == 1 else None)


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
        for part in value.values() if isinstance(value, Mapping) else value:
            check_size(name, part, limits, depth - 1)


def _jsonlike(value: Value) -> Json:
    """A default as JSON has it: lists for tuples, nothing for what it cannot hold."""
    if isinstance(value, list | tuple):
        return [_jsonlike(part) for part in value]
    return value if isinstance(value, bool | int | float | str) else None


def _short(value: Value) -> str:
    words = repr(value)
    return words if len(words) <= 80 else words[:77] + "..."
