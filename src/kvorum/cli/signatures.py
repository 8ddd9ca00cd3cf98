"""The programs and their parameters, read from their source text, so that nobody waits for torch to see a list.

Covers every function of `kvorum.programs` decorated with `@program`. Running one is in `solve`; the registry that
counts there is `kvorum.programs.REGISTRY`, and a test holds the two equal.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import kvorum
from kvorum.errors import BadRequest, UnknownName

_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class Signature:
    """A program as its source declares it; ``params`` maps each keyword to its default, ``kinds`` to its annotation."""

    name: str
    summary: str
    workers: int
    params: dict[str, Any]
    kinds: dict[str, str]


def signatures(folder: Path | None = None) -> dict[str, Signature]:
    """All programs in the files of ``folder`` (default: kvorum's own), by name."""
    folder = folder or Path(kvorum.__file__).parent / "programs"
    found: dict[str, Signature] = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef) and (mark := _mark(node)) is not None:
                name, summary = (str(ast.literal_eval(argument)) for argument in mark.args[:2])
                given = {word.arg: word.value for word in mark.keywords}
                workers = int(ast.literal_eval(given["workers"])) if "workers" in given else 1
                found[name] = Signature(name, summary, workers, _defaults(node), _kinds(node))
    return found


def signature(name: str) -> Signature:
    """The program called ``name``. Raises UnknownName with the near ones."""
    known = signatures()
    if name in known:
        return known[name]
    near = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}."
    raise UnknownName(f"There is no program {name!r}; {hint}")


def typed(program: Signature, name: str, value: str) -> Any:
    """``value`` as what the program's parameter ``name`` is declared to be; lists and mappings are read as JSON.

    Raises:
        UnknownName: the program has no such parameter. BadRequest: the value is not of that kind.
    """
    if name not in program.params:
        near = get_close_matches(name, program.params, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(program.params)}."
        raise UnknownName(f"The program {program.name} has no parameter {name!r}; {hint}")
    if "Callable" in program.kinds[name]:
        raise BadRequest(f"{name} holds functions; give it from Python.")
    kinds = re.sub(r"\[[^\[\]]*\]", "", program.kinds[name]).split(" | ")
    if "None" in kinds and value.lower() == "none":
        return None
    if "bool" in kinds:
        if value.lower() not in _YES + _NO:
            raise BadRequest(f"{name}={value} must be true or false.")
        return value.lower() in _YES
    for kind in (int, float):
        if kind.__name__ in kinds:
            try:
                return kind(value)
            except ValueError:
                continue
    if {"Sequence", "Mapping", "dict"} & set(kinds) and "str" not in kinds:
        return _json(name, value)
    if not {"int", "float"} & set(kinds):
        return value
    default = program.params[name]
    raise BadRequest(f"{name}={value} must be a number{f' such as {default}' if default is not None else ''}.")


def _json(name: str, value: str) -> Any:
    with contextlib.suppress(ValueError):
        found = json.loads(value)
        if isinstance(found, list | dict):
            return found
    raise BadRequest(f"{name}={value} must be a list or a mapping in JSON.")


def _mark(node: ast.AsyncFunctionDef) -> ast.Call | None:
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "program":
            return mark
    return None


def _defaults(node: ast.AsyncFunctionDef) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        try:
            values[argument.arg] = ast.literal_eval(default) if default is not None else None
        except ValueError:  # an expression; shown as it is written
            values[argument.arg] = ast.unparse(default) if default is not None else None
    return values


def _kinds(node: ast.AsyncFunctionDef) -> dict[str, str]:
    return {arg.arg: ast.unparse(arg.annotation) if arg.annotation else "str" for arg in node.args.kwonlyargs}
