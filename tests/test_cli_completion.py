"""Completion, asked by real shells: commands, options, programs, models. A shell that is not installed is left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvorum.cli import main

KVORUM = f'#!/bin/sh\nexec {sys.executable} -m kvorum.cli "$@"\n'


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `kvorum` on the path, an empty home, and the scripts of all shells."""
    command = tmp_path / "bin" / "kvorum"
    command.parent.mkdir()
    command.write_text(KVORUM)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    return tmp_path


def completed(shell: str, words: str, places: Path, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """What ``shell`` offers behind ``words``."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", shell]) == 0
    script = places / "script"
    script.write_text(capsys.readouterr().out)
    count = len(words.split(" "))
    ask = {
        "bash": f"source {script}; COMP_WORDS=({words}); COMP_CWORD={count - 1}; COMP_LINE='{words}'; "
        f"COMP_POINT={len(words)}; COMP_TYPE=9; _python_argcomplete kvorum; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        "zsh": "autoload -U compinit; compinit -u; _describe() { print -l -- ${(P)2} }; "
        f"words=({words}); [[ '{words}' == *' ' ]] && words+=(''); CURRENT=$#words; BUFFER='{words}'; "
        f"CURSOR={len(words)}; source {script}; _python_argcomplete kvorum",
        "fish": f"source {script}; complete -C '{words}'",
    }[shell]
    done = subprocess.run([shell, "-c", ask], capture_output=True, text=True, timeout=60, check=False)
    lines = (
        line.replace("\\:", "\0").partition(":" if shell == "zsh" else "\t")[0] for line in done.stdout.splitlines()
    )
    return {line.strip() for line in lines if line.strip()}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_programs_and_models(shell: str, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"solve", "serve", "study"} <= completed(shell, "kvorum s", places, capsys)
    assert "--workers" in completed(shell, "kvorum solve --w", places, capsys)
    assert completed(shell, "kvorum solve --program ho", places, capsys) == {"hogwild"}
    assert completed(shell, "kvorum pull smol", places, capsys) == {"smollm2-135m"}
    assert completed(shell, "kvorum programs ro", places, capsys) == {"roleplay"}


def test_parameters_once_they_are_known(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert completed("bash", "kvorum solve -p hogwild --param lay", places, capsys) == set()
    assert main(["programs"]) == 0
    capsys.readouterr()
    assert completed("bash", "kvorum solve --param ", places, capsys) == {"answer=", "loops="}
    assert completed("bash", "kvorum solve -p hogwild --param lay", places, capsys) == {"layout="}
    assert completed("bash", "kvorum solve -p tree --param tr", places, capsys) == {"trees="}


def test_an_answer_imports_no_torch(places: Path) -> None:
    code = (
        "import os, sys\nfrom kvorum.cli import main\nfrom kvorum.cli.parser import make_parser\n"
        "import argcomplete\nfinder = argcomplete.CompletionFinder(make_parser())\n"
        "print(finder._get_completions(['kvorum', 'solve', '-p'], 'ho', '', None), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['hogwild'] False\n" or done.stdout == "['hogwild '] False\n"
