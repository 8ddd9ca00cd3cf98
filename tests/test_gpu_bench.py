"""``benchmarks/gpu.py`` on a tiny shape: the whole program as it runs on a GPU, on whatever device is here; and what
`make gpu` runs, how it cuts off, and what it ends with.

Does not cover how long anything takes.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from interpreter import DEVICE

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.parametrize("attention", ["auto", pytest.param("triton", marks=pytest.mark.slow)])
def test_a_whole_run(attention: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("gpu", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    file = tmp_path / "gpu.json"
    words = ["--shape", "tiny", "--device", DEVICE, "--context", "16", "-w", "1,2", "--repeats", "1"]
    program.main([*words, "--attention", attention, "-o", str(file)])
    found = json.loads(file.read_text())
    assert [(cell["context"], cell["workers"]) for cell in found["cells"]] == [(16, 1), (16, 2)]
    for cell in found["cells"]:
        assert set(cell["sides"]) == {"kvorum", "transformers"}
        assert all(0 < side["min"] <= side["median"] <= side["max"] for side in cell["sides"].values())
        assert cell["limit_seconds"] > 0
    if attention == "triton":
        assert found["attention"] == "triton"
    assert "a tick behind 16 tokens" in capsys.readouterr().out


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(PROGRAM.parents[1] / "tools")
    return importlib.import_module("on_a_gpu")


def test_the_prepared_script(on_a_gpu: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cpu", "--shape", "tiny", "--parts", "ticks", "-o", str(tmp_path)]
    assert on_a_gpu.main(words) == 0
    assert len(json.loads((tmp_path / "ticks.json").read_text())["cells"]) == 2
    assert "ticks: passed after" in capfd.readouterr().out
    assert on_a_gpu.main([*words[:3], "no such shape", *words[4:]]) == 1
    for name in on_a_gpu.TESTS:
        assert (PROGRAM.parents[1] / name).is_file()


def test_a_part_that_hangs_is_cut_off_and_the_next_one_runs(on_a_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_a_gpu, "LEFT_TO_LATER", 0.0)
    jobs = {"tests": [sys.executable, "-c", "import time; time.sleep(60)"], "ticks": [sys.executable, "-c", "exit(3)"]}
    assert [outcome.code for outcome in on_a_gpu.run(jobs, 1.0)] == [None, 3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_parts_that_there_are_not_or_that_cannot_be_run(
    on_a_gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--device", "cpu", "--output", str(tmp_path), "--parts"]
    with pytest.raises(SystemExit) as refused:
        on_a_gpu.main([*words, "tick"])
    assert refused.value.code == 2
    assert "no part 'tick'" in capsys.readouterr().err
    monkeypatch.setattr(on_a_gpu, "_installed", lambda name: False)
    assert on_a_gpu.main([*words, "vllm"]) == 1
    assert "not installed" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(on_a_gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert on_a_gpu.main([]) == 2
    assert "There is no GPU" in capsys.readouterr().out
