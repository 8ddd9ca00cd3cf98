"""`kvorum fields`: one file, many files, a run that was killed, files that cannot be read, forms that cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kvorum.cli import main
from kvorum.errors import BadRequest
from kvorum.store.result_lines import ResultLines
from tiny_folder import own_home, tiny_file

FORM = {
    "type": "object",
    "properties": {"sort": {"enum": ["letter", "bill"]}, "paid": {"type": "boolean"}},
    "required": ["sort", "paid"],
}
OWN = """
from typing import Literal
from pydantic import BaseModel

class Letter(BaseModel):
    sort: Literal["letter", "bill"]
    paid: bool
"""


@pytest.fixture(scope="module")
def tiny() -> str:
    return str(tiny_file())


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    own_home(tmp_path / "home", monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "form.json").write_text(json.dumps(FORM))
    for at in range(4):
        (tmp_path / f"{at}.txt").write_text(f"Letter {at}: pay by Friday.")
    return tmp_path


def fields(tiny: str, *words: str) -> int:
    return main(["fields", *words, "--model", tiny, "--kv-tokens", "4096"])


def lines(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_one_file_prints_the_object(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fields(tiny, "0.txt", "--schema", "form.json") == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["sort", "paid"]
    assert fields(tiny, "0.txt", "--schema", "form.json", "--json", "--confidence") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["value"] == told
    assert set(line["confidence"]) == {"sort", "paid"}
    assert line["file"] == "0.txt"


def test_a_class_of_ones_own_is_a_form(tiny: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "own.py").write_text(OWN)
    assert fields(tiny, "0.txt", "--schema", "own.py:Letter", "-q") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"sort", "paid"}
    assert fields(tiny, "0.txt", "--schema", "own.py:Other") == 2
    assert "no class of pydantic" in capsys.readouterr().err


def test_many_files_are_lines_and_an_error_is_one_of_them(
    tiny: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "binary").write_bytes(b"\x00\x01\xff\xfe")
    names = ["0.txt", "binary", "gone.txt", "1.txt"]
    assert fields(tiny, *names, "--schema", "form.json", "-o", "out.jsonl", "-q") == 1
    found = lines()
    assert [line["file"] for line in found] == names
    assert ["error" in line for line in found] == [False, True, True, False]
    assert "gone.txt" in found[2]["error"]
    assert capsys.readouterr().out == ""
    (place / "gone.txt").write_text("It came.")
    assert fields(tiny, *names, "--schema", "form.json", "-o", "out.jsonl", "-q") == 1
    assert [(line["file"], "error" in line) for line in lines()] == [
        ("0.txt", False),
        ("1.txt", False),
        ("binary", True),
        ("gone.txt", False),
    ]
    (place / "gone.txt").unlink()
    assert fields(tiny, *names, "--schema", "form.json", "-q") == 1
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == names


def test_what_is_done_is_not_done_again(tiny: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["0.txt", "1.txt", "2.txt"]
    assert fields(tiny, *names[:2], "--schema", "form.json", "-o", "out.jsonl") == 0
    before = Path("out.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("kvorum.cli.fields.load", lambda *_, **__: pytest.fail("there was nothing to do"))
        assert fields(tiny, *names[:2], "--schema", "form.json", "-o", "out.jsonl") == 0
    assert Path("out.jsonl").read_bytes() == before
    (place / "1.txt").write_text("Another letter.")
    assert fields(tiny, *names, "--schema", "form.json", "-o", "out.jsonl") == 0
    assert [line["file"] for line in lines()] == ["0.txt", "1.txt", "1.txt", "2.txt"]
    (place / "form.json").write_text(json.dumps({**FORM, "required": ["sort"]}))
    assert fields(tiny, "0.txt", "--schema", "form.json", "-o", "out.jsonl") == 0
    assert [line["file"] for line in lines()].count("0.txt") == 2


def test_a_killed_run_goes_on_where_it_was(tiny: str, place: Path) -> None:
    names = [f"{at}.txt" for at in range(4)]
    words = ["fields", *names, "--schema", "form.json", "--model", tiny, "--kv-tokens", "4096", "-q", "-o"]
    process = subprocess.Popen([sys.executable, "-m", "kvorum.cli", *words, "cut.jsonl"], env=dict(os.environ))
    deadline = time.time() + 60
    while time.time() < deadline and process.poll() is None:
        if Path("cut.jsonl").exists() and Path("cut.jsonl").read_bytes().count(b"\n") >= 1:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = Path("cut.jsonl").read_bytes()
    with Path("cut.jsonl").open("ab") as file:
        file.write(b'{"file": "2.txt", "te')  # a line that was being written
    assert main([*words, "cut.jsonl"]) == 0
    assert Path("cut.jsonl").read_bytes().startswith(done)
    assert main([*words, "whole.jsonl"]) == 0
    assert [line["value"] for line in lines("cut.jsonl")] == [line["value"] for line in lines("whole.jsonl")]
    assert [line["file"] for line in lines("cut.jsonl")] == names


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["0.txt", "--schema", "none.json"], "none.json cannot be read"),
        (["0.txt", "--schema", "bad.json"], "no JSON"),
        (["0.txt", "--schema", "empty.json"], "The schema names no type"),
        (["none.txt", "--schema", "form.json"], "There is no file none.txt"),
        (["0.txt", "--schema", "form.json", "-o", "no/out.jsonl"], "The folder of no/out.jsonl does not exist"),
        (["0.txt", "--schema", "form.json", "-o", "1.txt"], "none of such results"),
        (["0.txt", "--schema", "form.json", "--tokens", "0"], "tokens"),
    ],
)
def test_wrong_use_is_one_sentence(
    tiny: str, place: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    (place / "bad.json").write_text("{")
    (place / "empty.json").write_text("{}")
    (place / "1.txt").write_text("words\n")
    assert fields(tiny, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert (place / "1.txt").read_text() == "words\n"


def test_lines_of_something_else_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"file": "a", "text": "b"}\n{"x": 1}\n')
    with pytest.raises(BadRequest, match="Line 2"):
        ResultLines(path, ("file", "text"))
    path.write_text('{"file": "a", "text": "b"}\n{"fi')
    found = ResultLines(path, ("file", "text"))
    assert found.has({"file": "a", "text": "b"})
    found.append({"file": "c", "text": "d", "error": "no"})
    assert not found.has({"file": "c", "text": "d"})
    assert path.read_text().splitlines()[0] == '{"file": "a", "text": "b"}'
