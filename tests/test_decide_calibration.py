"""Calibration: temperatures found again in made-up cases, measured on cases left out of the fit; and the command."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

import toy_engine
from kvorum import Choice, Decision, Engine, Row, View, YesNo, programs
from kvorum.cli.main import main
from kvorum.errors import BadRequest
from kvorum.harness.decisions.calibration import Case, best_temperature, fit, measures, read_calibration, tempered
from kvorum.harness.decisions.decide import Asking
from tiny_folder import tiny_folder


def made_up(count: int, too_sure: float, seed: int = 0) -> list[Case]:
    """Cases whose right answers fall by true probabilities, of which the model says the ``too_sure``-th power."""
    draw, found = random.Random(seed), []
    question = Choice("Which?", "q1", options=["a", "b", "c"])
    for at in range(count):
        weights = [draw.random() ** 2 + 0.01 for _ in range(3)]
        true = [weight / sum(weights) for weight in weights]
        right = draw.choices(range(3), true)[0]
        said = tempered(true, 1 / too_sure)
        found.append(Case(Decision(question, said, said, 1.0), right, at // 2))
    return found


def test_a_temperature_is_found_again() -> None:
    cases = made_up(1200, too_sure=2.5)
    assert best_temperature([case.decision.probabilities for case in cases], [case.right for case in cases]) == (
        pytest.approx(2.5, rel=0.15)
    )
    made = fit(cases, Asking(), "m")
    assert made.temperatures == {"choice": pytest.approx(2.5, rel=0.15)}
    assert made.before["accuracy"] == made.after["accuracy"]
    assert made.after["ece"] < made.before["ece"] / 2
    assert made.after["nll"] < made.before["nll"]
    assert read_calibration(json.loads(json.dumps(made.as_json()))) == made


def test_the_gain_is_not_told_from_cases_of_the_fit() -> None:
    """Where answers are pure chance, a temperature that saw them would always gain; one that did not need not."""
    question = YesNo("Is it?", "q1")
    lines = [(0.9, 0.1)] * 24
    cases = [Case(Decision(question, line, line, 1.0), at % 3 == 0, at) for at, line in enumerate(lines)]
    made = fit(cases, Asking(), "m")
    seen = measures([tempered(line, made.temperatures["yes_no"]) for line in lines], [case.right for case in cases])
    assert made.after["nll"] > seen["nll"]


def test_calibration_error_by_hand() -> None:
    """Bins of a tenth: two cases at 0.85, one right: 0.35 off; two at 0.65, both right: 0.35 off."""
    found = measures([(0.85, 0.15), (0.15, 0.85), (0.65, 0.35), (0.65, 0.35)], [0, 0, 0, 0])
    assert found["ece"] == pytest.approx((2 * 0.35 + 2 * 0.35) / 4)
    assert found["accuracy"] == 0.75


@pytest.mark.forward
def test_a_calibration_is_used_and_only_as_it_was_fitted() -> None:
    engine = toy_engine.engine()
    question = Choice("Which?", options=["ab", "cd", "ef"])
    plain = engine.decide("A text.", question, orders=2)[0]
    made = fit(made_up(40, 2.0), Asking(orders=2), engine.name)
    found = engine.decide("A text.", question, calibration=made)[0]
    assert found.uncorrected == plain.probabilities
    assert found.probabilities == pytest.approx(tempered(plain.probabilities, made.temperatures["choice"]))
    with pytest.raises(BadRequest, match="fitted with orders=2"):
        engine.run(programs.decide, "A text.", calibration=made.as_json())
    with pytest.raises(BadRequest, match="at least 20"):
        fit(made_up(19, 2.0), Asking(), "m")
    for broken in ({}, {"format": "kvorum calibration 1"}, {**made.as_json(), "temperatures": {"choice": -1}}):
        with pytest.raises(BadRequest, match="calibration"):
            read_calibration(broken)


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return str(tiny_folder(tmp_path / "tiny"))


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "mail.txt").write_text("My card was charged twice. Please help today.", encoding="utf-8")
    return str(tmp_path / "mail.txt")


def test_a_table_and_json(tiny: str, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    more = tmp_path / "more.json"
    more.write_text(
        json.dumps({"severe": {"type": "score", "instructions": "How severe?", "criteria": ["low", "high"]}})
    )
    asked = ["-q", "Which team?", "--choices", "billing, technical,sales", "-Q", str(more)]
    assert main(["decide", text, *asked, "-m", tiny]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["question", "answer", "probability", "margin", "others"]
    assert lines[1].startswith("Which team?")
    assert "█" in lines[1]
    assert "expected" in lines[2]
    assert lines[3].startswith("1 tick, ")
    assert err == ""
    assert main(["decide", text, *asked, "-m", tiny, "--json", "--orders", "4"]) == 0
    told = json.loads(capsys.readouterr().out)
    team, score = told["decisions"]
    assert [one["value"] for one in team["probabilities"]] == ["billing", "technical", "sales"]
    assert sum(one["probability"] for one in team["probabilities"]) == pytest.approx(1)
    assert team["orders"] == 4
    assert (score["name"], score["type"]) == ("severe", "score")
    assert score["score"] == pytest.approx(score["probabilities"][1]["probability"])
    assert told["ledger"]["decoded"] == 0


def test_questions_a_line_each_and_a_budget(
    tiny: str, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = tmp_path / "questions.txt"
    lines.write_text("".join(f"Is it number {n}?\n\n" for n in range(60)))
    assert main(["decide", text, "-Q", str(lines), "-m", tiny, "-b", "1"]) == 1
    out, err = capsys.readouterr()
    assert "Is it number 0?" in out
    assert "kvorum: the budget's ticks ended before" in err


def test_a_second_call_loads_the_text_and_a_saved_block_is_a_state(
    tiny: str, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, home: Path
) -> None:
    def shares(*files: str) -> list[float]:
        assert main(["decide", *files, "-q", "Is it paid?", "-m", tiny, "--json"]) == 0
        decision = json.loads(capsys.readouterr().out)["decisions"][0]
        return [one["probability"] for one in decision["probabilities"]]

    first = shares(text)
    [kept] = (home / "kept").glob("*/*.safetensors")
    assert shares(text) == first
    kept.write_bytes(b"damaged")
    assert shares(text) == first
    more = tmp_path / "more.txt"
    more.write_text("Nothing is paid.")
    assert len(shares(text, str(more))) == 2
    saved = tmp_path / "own.safetensors"
    engine = Engine.load(tiny)
    block = engine.block()
    engine.forward([Row(View(block), ids=list(range(20, 40)))])
    engine.save(block, saved)
    by_file = shares(str(saved))
    assert by_file == pytest.approx(list(engine.decide(block, ["Is it paid?"])[0].probabilities), abs=1e-6)
    assert main(["decide", str(saved), text, "-q", "Is it?", "-m", tiny]) == 2
    assert "together" in capsys.readouterr().err


def test_calibrate_and_use_it(tiny: str, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cases, made = tmp_path / "cases.jsonl", tmp_path / "calibration.json"
    asked = {"paid": {"type": "noul", "instructions": "Is it paid?"}}
    rows = [{"state": f"Bill {n}.", "questions": asked, "answers": {"paid": n % 3 == 0}} for n in range(24)]
    cases.write_text("\n".join(map(json.dumps, rows)))
    assert main(["decide", "--calibrate", str(cases), "-o", str(made), "-m", tiny, "--prior"]) == 0
    assert "temperatures from 24 answers: yes_no" in capsys.readouterr().out
    told = json.loads(made.read_text())
    assert told["prior"] is True
    assert main(["decide", text, "-q", "Is it paid?", "--calibration", str(made), "-m", tiny, "--json"]) == 0
    with_it = json.loads(capsys.readouterr().out)["decisions"][0]["probabilities"][0]["probability"]
    assert main(["decide", text, "-q", "Is it paid?", "-m", tiny, "--json", "--prior"]) == 0
    without = json.loads(capsys.readouterr().out)["decisions"][0]["probabilities"]
    shares = [one["probability"] for one in without]
    assert with_it == pytest.approx(tempered(shares, told["temperatures"]["yes_no"])[0])


WRONG = [
    (["{text}"], "There is no question"),
    (["/no/such/file", "-q", "x?"], "no file"),
    (["{text}", "-q", " "], "has no text"),
    (["{text}", "-q", "Which?", "--choices", "a,,b"], "option 2 is empty"),
    (["{text}", "-q", "Which?", "--choices", "[1,"], "no JSON"),
    (["{text}", "-Q", "{text}", "--choices", "a", "--levels", "b"], "not allowed with"),
    (["{text}", "-q", "x?", "-o", "y"], "--calibrate"),
    (["{text}", "-q", "x?", "--calibration", "{text}"], "no JSON"),
    (["{text}", "-q", "x?", "--calibration", "{text}", "--orders", "2"], "no JSON"),
    (["--calibrate", "{text}"], "line 1"),
    (["{binary}", "-q", "x?"], "binary"),
    (["{text}", "-q", "x?", "--orders", "-1"], "orders=-1"),
    (["{text}", "-q", "x?", "--kept", "much"], "--kept='much' is no size"),
    (["gone.safetensors", "-q", "x?"], "There is no file gone.safetensors"),
]


@pytest.mark.parametrize(("words", "sentence"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_use_is_one_sentence(
    tiny: str,
    text: str,
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\x00\xfe")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", None)
    given = [word.format(text=text, binary=tmp_path / "binary") for word in words]
    assert main(["decide", *given, "-m", tiny]) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.startswith("kvorum: ")
    assert err.count("\n") == 1
    assert out == ""
