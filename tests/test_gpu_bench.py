"""``benchmarks/gpu.py`` on a tiny shape: the whole program as it runs on a GPU, on whatever device is here.

Does not cover how long anything takes.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

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
