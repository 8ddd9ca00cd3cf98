"""`kvorum ask`: what it prints, with which exit code, and how it refuses bad input; on a tiny model in a folder."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from kvorum.cli import main
from kvorum.cli.ask import read_questions
from kvorum.errors import BadRequest
from tiny_folder import tiny_folder

TEXT = "The mill was built in 1804. It burned down in 1911. Ada Finch built it anew.\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KVORUM_KEPT", raising=False)
    return tmp_path / "home"


@pytest.fixture
def mill(tmp_path: Path) -> str:
    path = tmp_path / "mill.md"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def ask(tiny: str, *words: str) -> int:
    return main(["ask", *words, "--model", tiny, "--exact", "--kv-tokens", "2048", "--tokens", "5"])


def test_questions_stream_and_end_in_a_list(tiny: str, mill: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = ask(tiny, mill, "-q", "Who built it?", "-q", "When?")
    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.index("q1 | Who built it?") < out.index("1. Who built it?\n   ")
    assert "2. When?\n   " in out
    assert "mill.md: " in out
    assert "tokens, read in " in out
    assert "\x1b" not in out
    assert ask(tiny, mill, "-q", "Where?", "--quote", "-n", "9") == 0
    out = capsys.readouterr().out
    assert "known from before, loaded in " in out
    shown = [line for line in out.splitlines() if line.startswith("q1 | ")]
    quote = next(line for line in shown if line.startswith("q1 | > "))
    assert quote.removeprefix("q1 | > ") in " ".join(TEXT.split())
    assert shown[-1] == quote  # nothing of what chose it stands behind the answer
    assert ask(tiny, mill, "-q", "Why " * 400 + "?", "-n", "2") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 400


def test_json_has_every_answer(tiny: str, mill: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.jsonl"
    assert ask(tiny, mill, "-q", "Who?", "-q", "When?", "--json", "--quote", "--trace", str(trace)) == 0
    told = json.loads(capsys.readouterr().out)
    assert [answer["question"] for answer in told["answers"]] == ["Who?", "When?"]
    for answer in told["answers"]:
        quote = answer["quote"]
        assert TEXT[quote["start"] : quote["end"]] == quote["text"]
        assert (quote["document"], quote["place"]) == ("mill.md", "line 1")
        assert answer["seconds"] > 0
    assert told["loaded"] == 0 < told["tokens"]
    assert main(["replay", str(trace), "--json"]) == 0


def test_quiet_prints_answers_alone(tiny: str, mill: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tiny, mill, "-q", "Who?", "--quiet", "--kept", "0") == 0
    out = capsys.readouterr().out
    assert "Who?" not in out
    assert "time" not in out
    assert out.strip()


def test_standard_input_and_a_file_of_questions(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    questions = tmp_path / "questions.txt"
    questions.write_text("Who?\n\n  When?  \n")
    assert ask(tiny, "-", "-Q", str(questions), "--kept", "0") == 0
    out = capsys.readouterr().out
    assert "1. Who?" in out
    assert "2. When?" in out
    assert not list(home.glob("kept/*/*"))


def test_a_question_without_an_answer_is_told(tiny: str, mill: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tiny, mill, "-q", "Who?", "-q", "When?", "-w", "1", "--budget", "3") == 1
    out = capsys.readouterr().out
    assert "cut by the budget" in out
    assert "not asked: the budget was spent" in out
    assert ask(tiny, mill, "-q", "x" * 600, "--kept", "0", "--budget", "prefill=10") in (1, 2)


def test_bad_input_is_one_sentence(tiny: str, mill: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "long.txt").write_text(TEXT * 40)
    cases = {
        (mill,): "Say what to ask",
        ("-q", "Who?"): "There is no document",
        (mill, "-q", " "): "Question 1 is empty",
        ("gone.txt", "-q", "Who?"): "There is no file gone.txt",
        (str(tmp_path / "picture.png"), "-q", "Who?"): "is not UTF-8 text",
        (mill, "-q", "Who?", "--kept", "much"): "is no size",
        (mill, "-q", "Who?", "-w", "0"): "workers",
        (str(tmp_path / "long.txt"), "-q", "Who?"): "more than the 2,048 tokens that are free in the cache",
        (mill, "-q", "x" * 5000): "more than the 2,048 tokens",
    }
    for words, sentence in cases.items():
        assert ask(tiny, *words) == 2, words
        out, err = capsys.readouterr()
        assert sentence in err
        assert err.startswith("kvorum: "), err
        assert err.count("\n") == 1, err
        assert "Answer" not in out
    assert ask(tiny, str(tmp_path / "long.txt"), "-q", "Who?", "--split", "--json") == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["text"]


def test_questions_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_text("b\nc\n")
    assert read_questions(["a"], str(path)) == ["a", "b", "c"]
    with pytest.raises(BadRequest, match="There is no file"):
        read_questions([], str(tmp_path / "gone"))
