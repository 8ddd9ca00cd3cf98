"""The stub of the compiled kernels says what the module takes and gives, call by call."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum.native_extension import ABI, kernels

native = pytest.importorskip("kvorum_native._native", reason="kvorum-native is not installed")
STUB = Path(__file__).parents[1] / "native" / "src" / "kvorum_native" / "_native.pyi"


def stubbed(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, list[str], str]]:
    """Name, types of the arguments, and type of the result of every function of the stub."""
    for each in body:
        if isinstance(each, ast.ClassDef):
            yield from stubbed(each.body, f"{each.name}.")
        elif isinstance(each, ast.FunctionDef):
            given = [ast.unparse(arg.annotation) for arg in each.args.posonlyargs if arg.annotation is not None]
            assert each.returns is not None
            yield owner + each.name, given, ast.unparse(each.returns)


def exported(name: str) -> tuple[list[str], str]:
    """The same of a function of the module, as its own signature has it; lists are without what they hold."""
    found: object = native
    for part in name.split("."):
        found = getattr(found, part)
    getter = found.fget if isinstance(found, property) else found
    ((signature, *_),) = getter.__nb_signature__  # type: ignore[attr-defined]
    head, _, result = signature.replace("kvorum_native._native.", "").replace("collections.abc.", "").rpartition(" -> ")
    return re.findall(r"arg\d*: ([^,)]+)", head), result


def test_the_stub_is_what_the_module_exports() -> None:
    functions = list(stubbed(ast.parse(STUB.read_text()).body))
    for name, given, result in functions:
        assert exported(name)[0] == given, name
        assert result.split("[")[0] == exported(name)[1].split("[")[0], name
    known = {name.split(".")[0] for name, *_ in functions} | {"ABI"}
    assert known == {name for name in dir(native) if not name.startswith("_")}
    methods = {name for name, *_ in functions if "." in name}
    for owner in {name.split(".")[0] for name in methods}:
        there = {name for name in vars(getattr(native, owner)) if not name.startswith("_")} | {"__init__"}
        assert {name.split(".")[1] for name in methods if name.startswith(f"{owner}.")} == there


def test_the_loader_gives_this_version() -> None:
    found = kernels()
    if found is None:
        pytest.skip("KVORUM_NATIVE=0 leaves the kernels out")
    assert getattr(found, "ABI", None) == ABI == native.ABI
