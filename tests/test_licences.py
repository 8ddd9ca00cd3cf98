"""A licence that must be accepted is, by whoever sits at the terminal or by an option, before anything is fetched."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from kvorum.cli.main import main
from kvorum.errors import LicenceNotAccepted, ModelFileError
from kvorum.models import catalogue, pull


def test_a_licence_is_accepted_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path))
    entry = catalogue.lookup("gemma3-270m")
    fetched = []

    def fetch(entry: object, piece: object, partial: Path, *args: object) -> None:
        fetched.append(piece)
        raise ModelFileError("stop here")

    monkeypatch.setattr(pull, "_fetch_piece", fetch)
    with pytest.raises(
        LicenceNotAccepted, match=r"ai\.google\.dev/gemma/terms.*kvorum pull gemma3-270m --accept-licence"
    ):
        pull.pull(entry)
    assert main(["pull", "gemma3-270m"]) == 1
    assert "accept" in capsys.readouterr().err
    assert not fetched
    assert not list(tmp_path.iterdir())
    assert main(["pull", "gemma3-270m", "--accept-licence"]) == 1
    assert len(fetched) == 1
    assert not pull.needs_accepting(entry), "it is remembered"
    with pytest.raises(ModelFileError, match="stop here"):
        pull.pull(entry)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "words",
    [["pull"], ["solve", "1 + 1?", "-m"], ["check"], ["serve", "--port", "0", "-m"]],
    ids=lambda words: words[0],
)
def test_whoever_sits_at_a_terminal_is_asked_for_a_licence(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command that fetches a model asks first; without a terminal, or with a no, nothing is fetched."""
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path))
    entry = catalogue.lookup("gemma3-270m")

    def fetch(*args: object) -> None:
        raise ModelFileError("stop here")

    def said(answer: str | None) -> str:
        shown = Terminal()
        if answer is not None:
            monkeypatch.setattr(sys, "stdin", Terminal(answer))
            monkeypatch.setattr(sys, "stderr", shown)
        assert main([*words, entry.name]) > 0
        return shown.getvalue() + capsys.readouterr().err

    monkeypatch.setattr(pull, "_fetch_piece", fetch)
    assert "kvorum pull gemma3-270m --accept-licence" in (refused := said(None))
    assert "[y/N]" not in refused
    assert "--accept-licence" in (refused := said("\n"))
    assert "terms: https://ai.google.dev/gemma/terms" in refused
    assert pull.needs_accepting(entry)
    assert "stop here" in said("y\n")
    assert not pull.needs_accepting(entry)
    assert "[y/N]" not in said("")
