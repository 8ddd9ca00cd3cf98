"""``benchmarks/gpu_vllm.py`` on a tiny shape: the whole program as it runs on a GPU, in Triton's interpreter.

Does not cover how long anything takes, nor several ranks.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from spread_engines import MARKS

import interpreter as interpreter  # makes it quick, and skips this where there is no triton

pytestmark = MARKS
PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu_vllm.py"


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("gpu_vllm", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    file = tmp_path / "one.json"
    words = ["--shape", "tiny", "--device", "cpu", "--context", "16", "-w", "1,2", "--repeats", "1", "-o", str(file)]
    program.main(words)
    found = json.loads(file.read_text())
    assert found["good"], found["apart"]
    assert set(found["apart"]) == {"local", "eager", "graphs", "graphs from eager"}
    assert found["captured"] >= 3
    assert found["replayed"] >= 10
    assert found["refused"] is None
    assert found["cache"]["tokens"] >= 16
    assert " triton " in found["rounding"]
    assert found["rounding"].endswith(" graphs")
    assert [cell["workers"] for cell in found["ticks"]] == [1, 2]
    for cell in found["ticks"]:
        assert all(0 < cell[label]["min"] <= cell[label]["median"] for label in ("eager", "graphs"))
    assert "a tick behind 16 tokens" in capsys.readouterr().out
