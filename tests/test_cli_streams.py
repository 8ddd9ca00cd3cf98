"""The command where its streams are closed, its port is taken or its words are no text.

One sentence or none, and no file half written.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from kvorum.cli import main
from tiny_folder import tiny_file

KVORUM = [sys.executable, "-W", "error", "-m", "kvorum.cli"]


@pytest.fixture(scope="module")
def tiny() -> str:
    return str(tiny_file())


@pytest.mark.parametrize("closed", ["1", "2"])
def test_an_output_that_was_closed_before(closed: str, tiny: str, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    command = [*KVORUM, "solve", "x", "-m", tiny, "-b", "3", "-w", "1", "-q", "--trace", str(trace)]
    shell = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *command]
    found = subprocess.run(shell, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0
    assert "Traceback" not in found.stderr
    assert '"end"' in trace.read_text()


def test_bytes_of_the_command_line_that_are_no_text(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "run.jsonl"
    for words in (["caf\udce9"], ["x", "-w", "caf\udce9"], ["x", "--param", "answer=caf\udce9"]):
        assert main(["solve", *words, "-m", tiny, "-b", "3", "--trace", str(trace)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not trace.exists()


def test_a_port_that_is_taken(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        for place in (["--port", port], ["--host", "no.such.host.invalid", "--api-key", "long enough"]):
            assert main(["serve", "-m", tiny, *place]) == 2
            err = capsys.readouterr().err
            assert err.startswith("kvorum: Nobody can listen on ")
            assert err.count("\n") == 1


def test_json_is_utf8_whatever_the_terminal_speaks(tiny: str, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    assert main(["solve", "x", "-m", tiny, "-b", "3", "-w", "Zoë", "-q", "--trace", str(trace)]) in (0, 1)
    command = [*KVORUM, "replay", str(trace), "--show", "--speed", "0", "--json"]
    for encoding in ("ascii", "cp1252"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        found = subprocess.run(command, capture_output=True, timeout=120, check=True, env=environment)
        assert json.loads(found.stdout.decode("utf-8"))["workers"][0]["name"] == "Zoë"


def test_what_a_trace_holds_cannot_command_the_terminal(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "run.jsonl"
    assert main(["solve", "x", "-m", tiny, "-b", "3", "-w", "1", "-q", "--trace", str(trace)]) in (0, 1)
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    lines[0]["model"]["name"] = "/no\x1b[2J\u202e model"
    lines[-1]["answer"] = "4\x1b]0;x\x07\u202e2\tx"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    show = ["replay", str(trace), "--show", "--speed", "0", "-q"]
    assert main(show) == 0
    assert capsys.readouterr().out == lines[-1]["answer"] + "\n", "in a pipe it is what it is"
    monkeypatch.setattr(Console, "is_terminal", True)
    assert main(show) == 0
    assert capsys.readouterr().out == "4]0;x2    x\n"
    assert main(["replay", str(trace)]) == 1
    err = capsys.readouterr().err
    assert "There is no file or folder /no[2J model." in err
    assert "\x1b" not in err
