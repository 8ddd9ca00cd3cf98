"""Which program is likely to pay for a job, and what models are good for: by what stands in the study's results.

How often a real model tells the sort of a job is not tested; docs/programs.md has nine that were tried.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from kvorum.cli import main
from kvorum.lab.advice.advice import MEASURED, Advice, Measured, measured, sorts, suits
from kvorum.programs import REGISTRY
from kvorum.tasks.everyday.family import KINDS
from tiny_folder import tiny_file

TOOLS = Path(__file__).parents[1] / "tools"


def test_every_kind_of_job_is_of_one_sort() -> None:
    kinds = [kind for sort in sorts().values() for kind in sort.kinds]
    assert sorted(kinds) == sorted(KINDS)
    assert {sort.program for sort in sorts().values()} - {""} <= set(REGISTRY)
    for sort in sorts().values():
        assert bool(sort.program) == bool(sort.gain)
        assert sort.command.startswith(f"kvorum {sort.program or 'solve'} ")


@pytest.mark.slow  # half a million resamples
def test_what_is_advised_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module("evidence_tables")
    assert json.loads(MEASURED.read_text(encoding="utf-8")) == tool.advice(), "run: python tools/evidence_tables.py"


def test_what_a_model_is_good_for() -> None:
    good, bad = suits("qwen2.5-coder-1.5b")
    scores = {one.sort: one.score[0] for one in measured() if one.program == "plain"}
    assert good
    assert bad
    assert min(scores[name] for name in good) >= 0.8
    assert max(scores[name] for name in bad) <= 0.3
    assert suits("nobody") == ([], [])


@pytest.mark.parametrize(
    ("beside", "program"), [((0.1, -0.1, 0.3), "fields"), ((-0.1, -0.3, 0.1), "fields"), ((-0.2, -0.3, -0.1), "plain")]
)
def test_a_program_that_did_worse_is_not_advised(beside: tuple[float, float, float], program: str) -> None:
    """What merely may be worse is: it was made for such jobs, and is faster."""
    found = [Measured("m", "forms", "fields", 3, 15, (0.9, 0.8, 1.0), beside)]
    assert Advice(sorts()["forms"], 0.9, "m", found).program == program
    assert Advice(sorts()["code"], 0.9, "m", found).program == "plain"


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["solve", "--best", "Is this mail spam?", "-m", str(tiny_file())]
    assert main(call) == 0
    told = capsys.readouterr().out
    sort = next(sort for sort in sorts().values() if f"asks for: {sort.words} (" in told)
    assert f"is likely to pay: {sort.command if sort.program else 'kvorum solve'}" in told
    assert "Measured with qwen2.5-coder-1.5b:" in told
    assert "nothing was measured with" in told
    assert main([*call, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sort"] == sort.name
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["qwen2.5-coder-1.5b"]["good_for"], rows["qwen2.5-coder-1.5b"]["bad_for"]) == suits(
        "qwen2.5-coder-1.5b"
    )
    assert rows["smollm2-135m"]["good_for"] == []
