"""`kvorum replay` on traces that are cut, edited by hand, or of a fork: one sentence each, and the file as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvorum import Budget, Engine, programs
from kvorum.cli import main
from tiny_folder import tiny_folder

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def whole(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Lines:
    """The events of a finished run of two workers."""
    trace = tmp_path_factory.mktemp("whole") / "run.jsonl"
    words = ["--model", tiny, "-p", "hogwild", "--workers", "2", "--budget", "12", "--param", "final_tokens=4"]
    assert main(["solve", "What is 2 + 2?", *words, "--trace", str(trace), "-q"]) == 0
    return [json.loads(line) for line in trace.read_text().splitlines()]


def start(**change: Any) -> Callable[[Lines], None]:
    return lambda lines: lines[0].update(change)


def within(part: str, **change: Any) -> Callable[[Lines], None]:
    return lambda lines: lines[0].update({part: lines[0][part] | change})


def tick(change: Callable[[dict[str, Any]], Any]) -> Callable[[Lines], None]:
    return lambda lines: change([line for line in lines if line["event"] == "tick"][4])


def row(**change: Any) -> Callable[[Lines], None]:
    return tick(lambda event: event["rows"][0].update(change))


def put(**event: Any) -> Callable[[Lines], None]:
    return lambda lines: lines.insert(6, event)


EDITS: dict[str, tuple[Callable[[Lines], Any], str]] = {
    "an unknown limit": (start(budget={"hours": 3}), "hours"),
    "a limit of text": (start(budget={"ticks": "x"}), "must be a whole number"),
    "no budget": (start(budget={"ticks": -1}), "leaves nothing to spend"),
    "unknown sampling": (start(sampling={"heat": 1}), "heat"),
    "sampling of text": (start(sampling={"temperature": "hot"}), "what no run takes"),
    "workers of numbers": (start(workers=[1, 2]), "lacks its worker's name"),
    "no workers": (start(workers=[]), "0 workers"),
    "an unknown program": (start(program="hogwlid"), "did you mean hogwild"),
    "an unknown parameter": (start(params={"soon": 1}), "has no parameter 'soon'"),
    "an unknown injection": (start(inject=[{"foo": 1}]), "foo"),
    "injections of a number": (start(inject=7), "what no run takes"),
    "a later seed without a tick": (start(reseed=[[1]]), "what no run takes"),
    "a problem of a number": (within("task", prompt=5), "task's prompt"),
    "a cache of text": (within("model", kv_tokens="many"), "model's kv_tokens"),
    "a model of a number": (within("model", name=5), "model's name"),
    "a tick without rows": (tick(lambda event: event.pop("rows")), "(tick) lacks its rows"),
    "rows that are text": (tick(lambda event: event.update(rows=["ab"])), "(tick) lacks its worker"),
    "a tick without a number": (tick(lambda event: event.pop("n")), "(tick) lacks its n"),
    "seconds of text": (tick(lambda event: event.update(seconds="x")), "(tick) lacks its seconds"),
    "a token of text": (row(token="x"), "(tick) lacks its token"),
    "a command of nothing": (put(event="command"), "(command) lacks its kind"),
    "an answer of nobody": (put(event="outside"), "(outside) lacks its n"),
    "an end without a ledger": (lambda lines: lines[-1].pop("ledger"), "(end) lacks its ledger"),
    "an end with an empty ledger": (lambda lines: lines[-1].update(ledger={}), "(end) lacks its ticks"),
}


@pytest.mark.parametrize("case", EDITS)
def test_an_edited_trace_is_one_sentence(
    case: str, whole: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, sentence = EDITS[case]
    lines: Lines = json.loads(json.dumps(whole))
    change(lines)
    trace = tmp_path / "run.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = trace.read_bytes()
    assert main(["replay", str(trace)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kvorum: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert trace.read_bytes() == before


@pytest.mark.parametrize("token", [-5, 10**9])
def test_a_token_that_the_model_lacks(
    token: int, whole: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: Lines = json.loads(json.dumps(whole))
    row(token=token)(lines)
    trace = tmp_path / "run.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["replay", str(trace)]) == 1
    assert f"The trace has a token {token}" in capsys.readouterr().out


def test_a_line_that_is_cut_within_a_character(
    whole: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "run.jsonl"
    kept = "".join(json.dumps(line) + "\n" for line in whole[:9]).encode()
    trace.write_bytes(kept + '{"event":"tick","rows":[{"text":"é'.encode()[:-1])
    assert main(["replay", str(trace)]) == 0
    assert "of an unfinished run" in capsys.readouterr().out
    trace.write_bytes(b"\xff\n" + kept)
    assert main(["replay", str(trace)]) == 2
    assert "line 1 is not UTF-8 text" in capsys.readouterr().err
    trace.write_text("[" * 100_000)
    assert main(["replay", str(trace)]) == 2
    assert "not JSON" in capsys.readouterr().err


def test_a_version_that_is_not_here(whole: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [whole[0] | {"versions": {"kvorum-of-old": "0.0"}}, *whole[1:]]
    trace = tmp_path / "run.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["replay", str(trace), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions_changed"] == ["kvorum-of-old 0.0 (here none)"]


def test_a_fork_with_a_seed_of_its_own(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine.load(tiny, kv_tokens=4096)
    trace = tmp_path / "fork.jsonl"
    told: list[list[int]] = []
    for seeds in ((), ((5, 77),)):
        result = engine.run(
            programs.solo, "What is 2 + 2?", budget=Budget(ticks=20), seed=1, reseed=seeds, trace=trace, final_tokens=2
        )
        told.append(result.workers[0].ids)
    assert told[0][:5] == told[1][:5]
    assert told[0] != told[1]
    assert main(["replay", str(trace)]) == 0
    assert "identical: " in capsys.readouterr().out


def test_a_strangers_trace_commands_no_terminal(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.jsonl"
    assert (
        main(["solve", "2 + 2?", "-m", tiny, "-b", "20", "-p", "hogwild", "-w", "Ann,Ben", "--trace", str(trace)]) == 0
    )
    said = capsys.readouterr().out
    trace.write_text(trace.read_text().replace('"Ann"', '"\\u001b[2JAnn"'))
    assert main(["replay", str(trace), "--show", "--speed", "0"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.count("\n") == said.count("\n")
