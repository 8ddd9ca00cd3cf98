"""The programs and their parameters, read from their source text, so that nobody waits for torch to see a list.

Covers every function of `kvorum.programs` decorated with `@program`. Running one is in `solve`; the registry that
counts there is `kvorum.programs.REGISTRY`, and a test holds the two equal.
"""

from __future__ import annotations

import ast
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
    """A program as its source declares it; ``params`` maps each keyword to its default value."""

    name: str
    summary: str
    workers: int
    params: dict[str, Any]


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
                found[name] = Signature(name, summary, workers, _defaults(node))
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
    """``value`` in the type of the default of the program's parameter ``name``.

    Raises:
        UnknownName: the program has no such parameter. BadRequest: the value is not of the default's type.
    """
    if name not in program.params:
        near = get_close_matches(name, program.params, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(program.params)}."
        raise UnknownName(f"The program {program.name} has no parameter {name!r}; {hint}")
    default = program.params[name]
    if isinstance(default, str):
        return value
    if isinstance(default, bool):
        if value.lower() not in _YES + _NO:
            raise BadRequest(f"{name}={value} must be true or false.")
        return value.lower() in _YES
    if value.lower() == "none" and default is None:
        return None
    kinds = (float,) if isinstance(default, float) else (int,) if isinstance(default, int) else (int, float)
    for kind in kinds:
        try:
            return kind(value)
        except ValueError:
            continue
    if default is None or not isinstance(default, int | float):
        return value
    raise BadRequest(f"{name}={value} must be a number such as {default}.")


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
