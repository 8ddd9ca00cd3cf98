"""Programs of one's own on the command line: run, listed, replayed, and their errors as their author needs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum.cli import main
from kvorum.programs import REGISTRY
from tiny_folder import tiny_folder

PROGRAM = """
from typing import Annotated

from kvorum import program
from kvorum.runs.annotations import Help


@program("mine", "one worker, some words")
async def mine(run, *, words: Annotated[int, Help("How many words.", low=1)] = 3):
    {body}
    return str(words)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def written(folder: Path, body: str = "pass") -> Path:
    path = folder / "own.py"
    path.write_text(PROGRAM.replace("{body}", body))
    return path


def test_run_shown_and_replayed(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where, trace = f"{written(tmp_path)}:mine", tmp_path / "run.jsonl"
    words = ["solve", "x", "-m", tiny, "-p", where, "--param", "words=5", "-q", "--trace", str(trace)]
    assert main(words) == 0
    assert capsys.readouterr().out == "5\n"
    assert main(["programs", where]) == 0
    assert "How many words." in capsys.readouterr().out
    assert json.loads(trace.read_text().splitlines()[0])["where"] == where
    REGISTRY.pop("mine")
    assert main(["replay", str(trace)]) == 0
    assert "identical" in capsys.readouterr().out
    moved = tmp_path / "moved.py"
    Path(where.partition(":")[0]).rename(moved)
    REGISTRY.pop("mine")
    assert main(["replay", str(trace)]) == 1
    err = capsys.readouterr().err
    assert "There is no file" in err
    assert "-p FILE.py:NAME" in err
    assert main(["replay", str(trace), "-p", f"{moved}:mine"]) == 0


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        ("1 / 0", 10, "ZeroDivisionError: division by zero"),
        ("run.nothing", 10, "AttributeError"),
        ("if:", 10, "Syntax"),
    ],
)
def test_errors_name_the_line(
    body: str, line: int, said: str, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, body)
    assert main(["solve", "x", "-m", tiny, "-p", f"{path}:mine"]) == 1
    err = capsys.readouterr().err
    assert f'File "{path}", line {line}' in err
    assert said in err
    assert "site-packages" not in err
    assert "Traceback" not in err


def test_what_is_not_there(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    for where, said in (
        (f"{path}:min", "did you mean mine"),
        ("/no/such.py:x", "There is no file"),
        ("no.such:x", "no.such"),
    ):
        assert main(["solve", "x", "-m", tiny, "-p", where]) == 1
        assert said in capsys.readouterr().err
    assert main(["solve", "x", "-m", tiny, "-p", f"{path}:mine", "--param", "words=0"]) == 2
    assert "words=0 must be a whole number of at least 1" in capsys.readouterr().err
