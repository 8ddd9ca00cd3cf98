"""How the source is built: which file imports which, how long files are, how often a type is left open.

The order of rooms is import-linter's (``pyproject.toml``). Covers what that does not: circles of single files, imports
for types alone included; programs named outside their room; words that stand for "any type"; length. Not covered:
whether a file is about one thing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import kvorum

SOURCE = Path(kvorum.__file__).parents[1]
LONGEST, LONGEST_TEST = 300, 400
"""Lines of a file, and of a file of tests."""
LONGER = {
    "kvorum.runs.program",
}
"""Files that are longer all the same."""
MOST_OPEN = 150
"""How often ``Any``, ``cast`` or ``object`` in its place may be written."""


@cache
def files() -> dict[str, Path]:
    """Every file of the package by the dotted name of its module."""
    found = {}
    for path in sorted(SOURCE.glob("kvorum/**/*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(files()[name].read_text(encoding="utf-8"), str(files()[name]))


def imported(name: str) -> Iterator[str]:
    """The package's modules that a module imports, wherever in it: at its head, for types alone, inside a function."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files())
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: write imports in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found = inner if inner in files() else str(node.module)
                if found in files():
                    yield found


def open_types(name: str) -> Iterator[str]:
    """Each ``Any`` (in prose too: it is a word that is easily avoided), ``cast``, and ``object`` as a type."""
    yield from re.findall(r"\bAny\b", files()[name].read_text(encoding="utf-8"))
    made = set()  # where `object` is a value: object(), object.__setattr__
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            made.add(node.func)
        elif isinstance(node, ast.Attribute):
            made.add(node.value)
        elif isinstance(node, ast.ImportFrom) and node.module == "typing":
            yield from (alias.name for alias in node.names if alias.name == "cast")
        if isinstance(node, ast.Name) and (node.id == "cast" or (node.id == "object" and node not in made)):
            yield node.id


def test_there_is_no_circle_of_files() -> None:
    try:
        TopologicalSorter({name: set(imported(name)) - {name} for name in files()}).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def test_only_the_room_of_programs_names_a_program() -> None:
    """The list of programs may be asked by all above it."""
    named = [
        f"{name} imports {other}"
        for name in files()
        if not f"{name}.".startswith("kvorum.programs.")
        for other in imported(name)
        if other.startswith("kvorum.programs.")
    ]
    assert not named, "\n".join(named)


def test_types_are_said() -> None:
    found = {name: words for name in files() if (words := list(open_types(name)))}
    most = sorted(found, key=lambda name: -len(found[name]))
    told = ", ".join(f"{name} {len(found[name])}" for name in most[:20])
    assert sum(map(len, found.values())) <= MOST_OPEN, told


def test_files_are_short() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files().items()}
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST}
    assert {name: lines for name, lines in long.items() if name not in LONGER} == {}
    tests = {
        path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in Path(__file__).parent.glob("*.py")
    }
    assert {name: lines for name, lines in tests.items() if lines > LONGEST_TEST} == {}
