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
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Type:
    """A type taken apart."""

    kinds: list[Kind] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    items: Kind | None = None
    optional: bool = False
    help: Help = field(default_factory=Help)


def _parameter(name: str, hint: object, default: Value, sentence: str) -> Parameter:
    known = _read_type(hint)
    told = known.help
    kind = "program" if told.program else _one_kind(known)
    return Parameter(
        name=name,
        kind=kind,
        default=default,
        help=told.text or sentence,
        choices=tuple(known.choices) or tuple(told.choices),
        low=told.low,
        high=told.high,
        optional=known.optional or default is None,
        local=told.local or kind == "local",
        items=known.items,
        params_of=told.params_of,
    )


def _one_kind(known: _Type) -> Kind:
    """The kind that stands for all that a type allows: itself, or a plain one that may also be a list of such."""
    if set(known.kinds) == {"integer", "number"}:
        return "number"
    plain = [kind for kind in known.kinds if kind != "list"]
    if len(known.kinds) == 1 or (len(known.kinds) == 2 and plain == [known.items]):
        return (plain or known.kinds)[0]
    return "local"


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
            next((part.help for part in read if part.help != Help()), Help()),
        )
    if origin is Literal and all(part is None or isinstance(part, str) for part in parts):
        return _Type(["text"], [part for part in parts if part is not None], optional=None in parts)
    if hint is None or hint is types.NoneType:
        return _Type(optional=True)
    if isinstance(hint, type) and hint in _PLAIN:
        return _Type([_PLAIN[hint]])
    holder = origin or hint
    inner = [part for part in parts if part is not ...][-1:]  # of a mapping its values
    if isinstance(holder, type) and issubclass(holder, Mapping):
        return _of_items("mapping", inner)
    return _of_items("list", inner) if isinstance(holder, type) and issubclass(holder, Sequence) else _Type(["local"])


def _of_items(kind: Kind, inner: Sequence[object]) -> _Type:
    if not inner or isinstance(inner[0], str | ForwardRef):  # the type of JSON, which refers to itself
        return _Type([kind])
    kinds = _read_type(inner[0]).kinds
    return _Type(["local"]) if "local" in kinds else _Type([kind], items=kinds[0] if len(kinds) == 1 else None)
