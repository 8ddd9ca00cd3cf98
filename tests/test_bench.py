"""`kvorum bench`: the figures that follow from timings, a whole run on a tiny model, peers, and wrong use.

Not covered: how long anything takes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kvorum.bench.compare import Bench, Cell
from kvorum.bench.machine import about, bandwidth
from kvorum.bench.measure import Timing, interleaved
from kvorum.bench.sides import Slots, llama_cpp
from kvorum.cli import main
from kvorum.errors import BadRequest
from tiny import tiny_folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("tiny")))


def test_ratios_of_planted_timings() -> None:
    bench = Bench()
    for side, workers, seconds in (("kvorum", 1, 0.01), ("kvorum", 8, 0.02), ("other", 8, 0.08)):
        bench.cells.append(Cell(side, 256, workers, Timing.of([seconds, seconds * 3, seconds / 2])))
    assert bench.cells[1].rate == pytest.approx(400)
    assert bench.over("other", 256, 8) == pytest.approx(4)
    assert bench.growth("kvorum", 256, 8) == pytest.approx(2)
    assert bench.over("other", 256, 1) is None
    assert bench.growth("other", 256, 8) is None
    assert bench.cells[0].tick == Timing(0.01, 0.005, 0.03)


def test_jobs_take_turns_and_the_first_round_does_not_count() -> None:
    called: list[str] = []
    found = interleaved({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert called == ["a", "b"] * 4
    assert set(found) == {"a", "b"}


def test_what_is_said_of_the_machine() -> None:
    said = about()
    assert said["threads"] >= 1
    assert said["versions"]["torch"]
    assert said["processor"]
    assert 1e8 < bandwidth(64, 2) < 1e13


@pytest.mark.parametrize("exact", [True, False])
def test_a_whole_run(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], exact: bool) -> None:
    file = tmp_path / "bench.json"
    words = ["bench", "-m", tiny, "--context", "32,64", "-w", "1,3", "--repeats", "2", "--heavy", "100"]
    assert main([*words, "--spans", "--json", "-o", str(file), *(["--exact"] if exact else [])]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert json.loads(file.read_text()) == found
    assert "llama.cpp is left out" in err
    cells = {(cell["side"], cell["context"], cell["workers"]) for cell in found["ticks"]}
    ours = {("kvorum", context, workers) for context in (32, 64) for workers in (1, 3)}
    assert cells == ours | {("transformers", 32, 1), ("transformers", 32, 3), ("transformers", 64, 1)}  # 192 is heavy
    for cell in found["ticks"]:
        assert 0 < cell["tick_seconds"]["min"] <= cell["tick_seconds"]["median"] <= cell["tick_seconds"]["max"]
        assert math.isfinite(cell["tokens_per_second"])
    assert {row["side"] for row in found["prefill"]} == {"kvorum", "transformers"}
    assert [row["spans"] for row in found["spans"]] == [1, 16, 64, 256]
    for name in ("bandwidth", "weight_bytes", "bytes_per_token", "peak_memory"):
        assert found["about"][name] > 0


def test_tables_for_people(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-m", tiny, "--context", "32", "-w", "1,2", "--repeats", "1", "--peers", "none"]) == 0
    out = capsys.readouterr().out
    assert "a tick behind 32 tokens" in out
    assert "Not shown" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--context", "0"], "--context takes whole numbers above 0"),
        (["--workers", "two"], "--workers takes whole numbers above 0"),
        (["--repeats", "0"], "--repeats must be 1 or more"),
        (["--peers", "vllm9"], "There is no peer 'vllm9'"),
        (["-o", "/no/such/folder/x.json"], "does not exist"),
        (["-m", "smollm3"], "smollm2-135m"),
    ],
)
def test_wrong_use_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.skipif(llama_cpp() is None, reason="llama-cpp-python is not installed")
def test_llama_cpp_has_slots_of_its_own(tmp_path: Path) -> None:
    from kvorum.models.catalogue import lookup
    from kvorum.models.store import entry_folder

    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(BadRequest, match="cannot read"):
        Slots(file)
    gguf = entry_folder(lookup("smollm2-135m")).gguf
    if not gguf.exists():
        pytest.skip("smollm2-135m is not in the cache")
    slots = Slots(gguf)
    context = list(range(100, 140))
    assert slots.prefill(context) > 0
    with slots.team(context, 3) as tick:
        tick()
        tick()
