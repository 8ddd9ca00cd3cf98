"""`kvorum demo`: its text holds what it asks for, and on a real model it tells the figures that it shows.

Not here: how right the strongest model is (README).
"""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest

from kvorum.cli.demo import QUESTIONS, RIGHT
from kvorum.cli.main import main


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
