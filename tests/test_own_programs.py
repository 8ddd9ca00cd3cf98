"""Programs of one's own, from files, modules and installed packages; a new one among kvorum's, by folder and line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest

import kvorum
import toy_engine
from kvorum import Budget, programs
from kvorum.errors import BadRequest, ProgramError, UnknownName
from kvorum.own_program_names import GROUP
from kvorum.programs import own
from package_copy import add_line, copy_package, said

GREET = """
from kvorum import Run, View, program


@program("greet", "one worker says what it likes")
async def greet(run: Run, *, words: str = "Hello.", boom: bool = False) -> str | None:
    worker = run.workers[0]
    worker.view = View(run.block("b"))
    worker.feed(run.encode(words))
    if boom:
        raise RuntimeError("as asked")
    while not run.spent:
        await run.tick([worker])
    return worker.text


def plain() -> None: ...
"""


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(programs.REGISTRY)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    programs.REGISTRY.clear()
    programs.REGISTRY.update(before)


@pytest.fixture
def greet(tmp_path: Path) -> Path:
    path = tmp_path / "greetings.py"
    path.write_text(GREET)
    return path


def test_a_program_from_a_file_runs_and_is_found_by_its_name(greet: Path) -> None:
    for where in (f"{greet}:greet", str(greet)):
        found = programs.load(where)
        assert [parameter.name for parameter in found.parameters] == ["words", "boom"]
        result = toy_engine.fake().run(found, "x", budget=Budget(ticks=3), words="Hi.")
        assert len(result.workers[0].ids) == 3
        assert programs.find("greet") is found
    with pytest.raises(BadRequest, match="must be text"):
        toy_engine.fake().run(programs.find("greet"), "x", words=3)
    result = toy_engine.fake().run(
        programs.tree, "p", leaf="greet", leaf_params={"words": "So."}, tokens=5, budget=Budget(ticks=40)
    )
    start = next(event for event in result.trace.events if event["event"] == "start")
    assert start["params"]["leaf"] == "greet"


def test_a_program_from_a_module(greet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(greet.parent)
    assert programs.load("greetings:greet").name == "greet"
    with pytest.raises(ProgramError, match="No module named 'nowhere'"):
        programs.load("nowhere:greet")


def test_an_error_of_its_check_is_told_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "checked.py"
    path.write_text(
        dedent("""\
        from kvorum import program

        def fits(workers, *, size):
            assert workers % size == 0

        @program("checked", "as many as fit", together=fits)
        async def checked(run, *, size: int = 1): ...
        """)
    )
    found = programs.load(str(path))
    assert found.check({"size": 2}, workers=4) == {"size": 2}
    with pytest.raises(ProgramError, match="line 4, in fits\n    assert workers"):
        found.check({"size": 3}, workers=4)
    assert programs.load(f"{path}:checked").together is not None


def test_names_from_the_network_never_load_anything(greet: Path) -> None:
    with pytest.raises(UnknownName):
        programs.find(f"{greet}:greet")
    with pytest.raises(UnknownName):
        programs.tree.check({"leaf": f"{greet}:greet"})


def test_what_is_not_there_is_told(greet: Path) -> None:
    for where, words in (
        (f"{greet}:greed", "did you mean greet"),
        (f"{greet}:plain", "plain in .* is no program yet"),
        (f"{greet.parent}/other.py:x", "There is no file"),
    ):
        with pytest.raises(ProgramError, match=words):
            programs.load(where)
    greet.write_text(GREET.replace('"greet"', '"solo"'))
    with pytest.raises(ProgramError, match="calls itself solo"):
        programs.load(f"{greet}:greet")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("import kvorum\nx = (1,\n", 2, "SyntaxError"),
        ("\n\ny = 1 + unknown_name\n", 3, "y = 1 . unknown_name\nNameError"),
        ("from kvorum import program\n@program('a', 'b')\nasync def f(run, *, x): ...\n", 2, "BadRequest.*default"),
    ],
    ids=["syntax", "name", "declaration"],
)
def test_errors_of_a_file_are_told_by_file_and_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ProgramError) as refused:
        programs.load(f"{path}:f")
    told = str(refused.value)
    assert f'File "{path}", line {line}' in told
    assert re.search(words, told)
    assert str(Path(kvorum.__file__).parent) not in told


def test_errors_of_a_run_are_told_by_file_and_line(greet: Path) -> None:
    found = programs.load(f"{greet}:greet")
    with pytest.raises(ProgramError) as failed:
        toy_engine.fake().run(found, "x", boom=True)
    line = GREET.split("\n").index('        raise RuntimeError("as asked")') + 1
    assert f'File "{greet}", line {line}, in greet\n    raise RuntimeError("as asked")\nRuntimeError: as asked' in str(
        failed.value
    )
    assert str(Path(kvorum.__file__).parent) not in str(failed.value)


def test_installed_packages_bring_programs(greet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(greet.parent)
    monkeypatch.delitem(sys.modules, "greetings", raising=False)
    brought = [EntryPoint("greet", "greetings:greet", GROUP), EntryPoint("gone", "nowhere:x", GROUP)]
    monkeypatch.setattr(own, "entry_points", lambda group: brought if group == GROUP else [])
    with pytest.warns(UserWarning, match="gone of an installed package is left out"):
        assert list(own.installed(())) == ["greet"]
    monkeypatch.setattr(own, "entry_points", lambda group: brought[:1])
    with pytest.warns(UserWarning, match="already"):
        assert own.installed(("greet",)) == {}


def test_a_new_program_is_a_folder_and_a_line(tmp_path: Path) -> None:
    """In a copy of the package: the folder with the program, one line in ``programs/__init__.py``, and all know it."""
    copy_package(tmp_path)
    folder = tmp_path / "kvorum" / "programs" / "greet"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "greet.py").write_text(
        GREET.replace(
            "from kvorum import Run, View, program",
            dedent("""
        from kvorum.kv import View
        from kvorum.runs.program import program
        from kvorum.runs.run import Run
    """),
        )
    )
    add_line(
        folder.parent / "__init__.py",
        "from kvorum.programs.vote import vote as vote",
        "from kvorum.programs.greet.greet import greet as greet",
    )
    code = "from kvorum import programs; print(programs.find('greet').params['words'], *programs.REGISTRY)"
    words = said(tmp_path, code)
    assert words[:2] == ["Hello.", "agent"]
    assert "greet" in words
