"""The command: runs that are stopped, resumed, replayed and shown."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cli_calls import KVORUM, solve, ticks
from kvorum.cli import main
from tiny_folder import own_home, tiny_file


@pytest.fixture(scope="module")
def tiny() -> str:
    return str(tiny_file())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and one thread: the model is tiny."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return own_home(tmp_path / "home", monkeypatch)


def test_stopped_and_resumed_gives_the_same_tokens(tiny: str, tmp_path: Path) -> None:
    words = ["x", "-m", tiny, "-p", "hogwild", "-w", "2", "--param", "suppress_end=true"]
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    command = [*KVORUM, "solve", *words, "-b", "4000", "--trace", str(cut)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        while not cut.exists() or cut.read_text().count('"tick"') < 20:
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=120)
    assert run.returncode == 130
    assert f"go on with: kvorum replay {cut} --resume" in err
    assert "Traceback" not in err
    begun = ticks(cut)
    assert 20 <= len(begun) < 3900
    lower_budget(cut, len(begun) + 30)
    assert main(["replay", str(cut), "--resume", "--quiet"]) == 0
    assert main(["solve", *words, "-b", str(len(begun) + 30), "--trace", str(whole), "--quiet"]) == 0
    assert ticks(cut)[: len(begun)] == begun
    assert ticks(cut) == ticks(whole)


def lower_budget(trace: Path, budget: int) -> None:
    """The run was asked for more than a test should wait for."""
    first, _, rest = trace.read_text().partition("\n")
    start = json.loads(first)
    start["budget"] = {"ticks": budget}
    trace.write_text(json.dumps(start) + "\n" + rest)


def test_terminated_without_a_trace_keeps_one(tiny: str, home: Path) -> None:
    command = [*KVORUM, "solve", "x", "-m", tiny, "-p", "hogwild", "-b", "9000", "--param", "suppress_end=true"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in err
    (kept,) = (home / "stopped").iterdir()
    assert f"kvorum replay {kept} --resume" in err
    assert len(ticks(kept)) > 0


def test_replay_checks_every_token(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.jsonl"
    assert solve(tiny, "--trace", str(trace)) == 0
    capsys.readouterr()
    assert main(["replay", str(trace)]) == 0
    lines = trace.read_text().splitlines()
    spent = json.loads(lines[-1])["ledger"]
    counted = f"identical: {spent['ticks']} ticks, {spent['decoded']} tokens decoded and the same answer\n"
    assert capsys.readouterr().out == counted
    at = next(n for n, line in enumerate(lines) if '"n":7' in line)
    event = json.loads(lines[at])
    row = event["rows"][1]
    row["token"] = (row["token"] + 1) % 200
    trace.write_text("\n".join([*lines[:at], json.dumps(event), *lines[at + 1 :]]))
    assert main(["replay", str(trace)]) == 1
    assert f"not identical: tick 7, {row['worker']}" in capsys.readouterr().out
    assert main(["replay", str(trace), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["identical"] is False
    assert told["differences"][0].startswith(f"tick 7, {row['worker']}")


def test_replay_of_an_unfinished_trace(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.jsonl"
    assert solve(tiny, "--workers", "2", "--trace", str(trace)) == 0
    assert main(["replay", str(trace), "--resume"]) == 2
    assert "is finished" in capsys.readouterr().err
    whole = ticks(trace)
    lines = trace.read_text().splitlines()
    trace.write_text("\n".join(lines[: len(lines) // 2]) + '\n{"event":"ti')  # killed while it wrote
    part = trace.read_text()
    assert main(["replay", str(trace)]) == 0
    assert "of an unfinished run" in capsys.readouterr().out
    assert trace.read_text() == part
    assert main(["replay", str(trace), "--show", "--speed", "0"]) == 0
    assert "not finished" in capsys.readouterr().out
    assert main(["replay", str(trace), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == json.loads(lines[-1])["outcome"]
    assert ticks(trace) == whole


def test_show_prints_what_the_run_printed(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.jsonl"
    assert solve(tiny, "--trace", str(trace)) == 0
    then = capsys.readouterr().out
    assert main(["replay", str(trace), "--show", "--speed", "0"]) == 0
    now = capsys.readouterr().out
    assert [line for line in now.splitlines() if not line.startswith("time")] == [
        line for line in then.splitlines() if not line.startswith("time")
    ]


def test_replay_with_another_model(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.jsonl"
    assert solve(tiny, "--trace", str(trace)) == 0
    lines = trace.read_text().splitlines()
    for change, sentence in (
        ({"name": "smolm2-135m"}, "did you mean smollm2-135m"),
        ({"weights": "packed", "dtype": "float64"}, "Packed weights"),
        ({"name": None}, "damaged"),
    ):
        start = json.loads(lines[0])
        start["model"] |= change
        if change.get("name", "") is None:
            del start["model"]["name"]
        trace.write_text("\n".join([json.dumps(start), *lines[1:]]))
        capsys.readouterr()
        assert main(["replay", str(trace)]) == 2
        err = capsys.readouterr().err
        assert sentence in err
        assert err.count("\n") == 1
