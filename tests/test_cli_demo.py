"""`kvorum demo`: its text holds what it asks for, and on a real model it tells the figures that it shows.

Not here: how right the strongest model is (README).
"""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest

from kvorum.cli.demo import QUESTIONS, RIGHT, Answered, compared
from kvorum.cli.main import main
from kvorum.harness.asked import Asked


def test_the_text_says_what_is_asked() -> None:
    text = (files("kvorum.examples") / "minutes.md").read_text(encoding="utf-8")
    assert len(QUESTIONS) == len(RIGHT) == 8
    for right in RIGHT:
        assert right in " ".join(text.split())


def test_it_runs_and_tells_its_figures(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVORUM_KEPT", "0")
    assert main(["demo", "-m", "smollm2-135m", "--kv-tokens", "8192", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    schema = json.loads((files("kvorum.examples") / "minutes.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(told["form"], schema)
    together, apart = told["side_by_side"], told["one_by_one"]
    assert [one["text"] for one in together["answers"]] == [one["text"] for one in apart["answers"]]
    assert together["ticks"] < apart["ticks"]
    assert 0 <= told["right"] <= 8


@pytest.mark.parametrize(("loaded", "reading"), [(0, "read first, either way: 7.5 s against 11.5 s."), (660, "")])
def test_what_is_gained_counts_the_reading_for_both_ways_or_for_none(loaded: int, reading: str) -> None:
    """The second way finds the text that the first has read, and its own seconds have no reading in them."""
    together = Answered(Asked([], 660, loaded, 4.5), seconds=7.5, ticks=20)
    apart = Answered(Asked([], 660, 660, 0.125), seconds=7.125, ticks=90)
    words = compared(together, apart)
    assert "2.3 times faster[/bold green]: 3.0 s against 7.0 s." in words
    assert words.endswith(reading or "7.0 s.")
