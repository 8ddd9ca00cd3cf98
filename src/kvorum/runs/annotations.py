"""Reads a program's parameters from the typed keywords of its function.

``layout: Literal["near", "far"] = "near"`` declares one, and a line ``layout: How far apart.`` under ``Args:`` in the
function's docstring says what it means; ``Annotated[..., Help(...)]`` adds what a type cannot say, such as bounds. A
keyword whose type JSON cannot hold (functions, objects) is local, as is one that says so: it is given from Python or by
the person at the machine, never over the network.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ForwardRef, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.runs.parameters import Kind, Parameter, Value

_PLAIN: dict[type, Kind] = {bool: "boolean", int: "integer", float: "number", str: "text"}


@dataclass(frozen=True, slots=True)
class Help:
    """What stands beside a keyword's type: one plain sentence, and what the type cannot say.

    ``text``: the sentence, where it is not in the docstring of the program's function.
    ``low`` and ``high`` bound a number, ends included. ``choices``: the words that a text may be, where a table has
    them; otherwise a Literal says so. ``local``: it reaches files, code or a stand-in for the model,
    and is never taken from the network. ``program``: its text names a program, which works inside this one ("": none).
    ``params_of``: it holds the parameters of the program that the keyword of this name names, and its ``workers``.
    """

    text: str = ""
    low: float | None = None
    high: float | None = None
    choices: Sequence[str] = ()
    local: bool = False
    program: bool = False
    params_of: str | None = None


PositiveInt: TypeAlias = Annotated[int, Help(low=1)]
"""A whole number from 1 on."""
NonNegativeInt: TypeAlias = Annotated[int, Help(low=0)]
"""A whole number from 0 on."""
NonNegativeFloat: TypeAlias = Annotated[float, Help(low=0)]
"""A number from 0 on."""


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
    sentences = _argument_sentences(inspect.getdoc(function) or "")
    return tuple(
        _parameter(keyword.name, found.get(keyword.name), keyword.default, sentences.get(keyword.name, ""))
        for keyword in keywords
    )


def _argument_sentences(docstring: str) -> dict[str, str]:
    """What the section ``Args`` of a docstring says of each argument."""
    section = re.search(r"^Args:\n((?: +.*\n?|\n)*)", docstring, re.MULTILINE)
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE) if section else []
    return {name: " ".join(words.split()) for name, words in found}


def _parameter(name: str, hint: object, default: Value, sentence: str) -> Parameter:
    parts = _alternatives(hint)
    said = next((part for part in parts if isinstance(part, Help)), Help())
    kinds = _kinds(parts)
    items = next((items for _, items in kinds if items is not None), None)
    kind = "program" if said.program else _one_kind({kind for kind, _ in kinds}, items)
    return Parameter(
        name=name,
        kind=kind,
        default=default,
        help=said.text or sentence,
        choices=tuple(part for part in parts if isinstance(part, str)) or tuple(said.choices),
        low=said.low,
        high=said.high,
        optional=None in parts or default is None,
        local=said.local or kind == "local",
        items=items,
        params_of=said.params_of,
    )


def _alternatives(hint: object) -> list[object]:
    """What an annotation allows, one by one: types, the words of a Literal, None; and the ``Help`` beside them."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return [*(part for part in parts[1:] if isinstance(part, Help)), *_alternatives(parts[0])]
    if origin in (Union, types.UnionType):
        return [one for part in parts for one in _alternatives(part)]
    if origin is Literal and all(part is None or isinstance(part, str) for part in parts):
        return list(parts)
    return [None if hint is types.NoneType else hint]


def _kinds(parts: Sequence[object]) -> set[tuple[Kind, Kind | None]]:
    """The kinds of all alternatives, each with that of its items if all of these are of one."""
    return {_kind(part) for part in parts if part is not None and not isinstance(part, Help)}


def _kind(part: object) -> tuple[Kind, Kind | None]:
    """The kind of one alternative and of its items; what JSON cannot hold is local."""
    if isinstance(part, str):
        return "text", None
    if isinstance(part, type) and part in _PLAIN:
        return _PLAIN[part], None
    holder = get_origin(part) or part
    if not isinstance(holder, type) or not issubclass(holder, Mapping | Sequence):
        return "local", None
    kind: Kind = "mapping" if issubclass(holder, Mapping) else "list"
    inner = [item for item in get_args(part) if item is not ...][-1:]  # of a mapping its values
    if not inner or isinstance(inner[0], str | ForwardRef):  # the type of JSON, which refers to itself
        return kind, None
    items = {item for item, _ in _kinds(_alternatives(inner[0]))}
    if "local" in items:
        return "local", None
    return kind, items.pop() if len(items) == 1 else None


def _one_kind(kinds: set[Kind], items: Kind | None) -> Kind:
    """The kind that stands for all that a type allows: itself, or a plain one that may also be a list of such."""
    if kinds == {"integer", "number"}:
        return "number"
    if items is not None and kinds == {"list", items}:
        return items
    return next(iter(kinds)) if len(kinds) == 1 else "local"
