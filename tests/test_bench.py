"""`kvorum bench`: the figures and bounds that follow from timings, a whole run on a tiny model with each side in its
process, sides that fail, llama.cpp's two kinds of slots, and wrong use.

Not covered: how long anything takes; vLLM, which is run only where it is installed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from kvorum import Engine
from kvorum.bench import machine, quality, start
from kvorum.bench.bounds import bounds
from kvorum.bench.compare import Comparison, interleaved
from kvorum.bench.engines.kvorum import Shared
from kvorum.bench.engines.process import Process
from kvorum.bench.engines.server import Server
from kvorum.bench.engines.side import SideOptions, tokens
from kvorum.bench.quality import score, text
from kvorum.bench.report import show
from kvorum.bench.result import About, Asked, Attention, Bench, Machine, Prefill, Quality, TeamTick, Timing
from kvorum.bench.session import Session
from kvorum.cli import main
from kvorum.errors import BadRequest, BenchError
from tiny_folder import tiny_folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("tiny")))


FACTS = About(
    "smollm2-135m",
    Machine("A", 2, 2, "AVX2", {}, "2026-11-24", bandwidth=2e10),
    {},
    vocab=257,
    weight_bytes=10**8,
    bytes_per_token=46080,
)


def planted() -> Bench:
    """kvorum at 1, 8 and 16 workers behind 1,024 tokens, and its peers at 8."""
    bench = Bench()
    for side, workers, seconds in (
        ("kvorum", 1, 0.01),
        ("kvorum", 8, 0.02),
        ("kvorum", 16, 0.04),
        ("llama.cpp", 8, 0.05),
        ("transformers", 8, 0.06),
    ):
        bench.ticks.append(TeamTick(side, 1024, workers, Timing.of([seconds, seconds * 3, seconds / 2]), 5 << 20))
    bench.ticks.append(TeamTick("kvorum", 256, 8, Timing.of([0.02]), 1))
    bench.ticks.append(TeamTick("llama.cpp", 256, 8, Timing.of([0.03]), 1))
    return bench


def test_ratios_of_planted_timings() -> None:
    bench = planted()
    assert bench.ticks[1].rate == pytest.approx(400)
    assert bench.over("llama.cpp", 1024, 8) == pytest.approx(2.5)
    assert bench.growth("kvorum", 1024, 8) == pytest.approx(2)
    assert bench.over("llama.cpp", 1024, 1) is None
    assert bench.growth("llama.cpp", 1024, 8) is None
    assert bench.ticks[0].tick == Timing(0.01, 0.005, 0.03, 3)
    bench.attention = [Attention(4096, 1, Timing.of([0.01])), Attention(4096, 8, Timing.of([0.02]))]
    assert bench.attention_growth(8) == pytest.approx(2)
    assert bench.attention_growth(16) is None


STARTED = {"import torch": 1.6, "kvorum --help": 0.1, "an error": 0.2, "kvorum solve": 2.4, "kvorum ask": 2.7}


def test_bounds_take_the_worst_of_what_was_measured() -> None:
    bench = planted()
    bench.spans = {1: Timing.of([0.01]), 256: Timing.of([0.011])}
    bench.quality = [Quality(100, 256, "packed", 50.0, 50.5, 0.9), Quality(100, 16, "packed", 50.0, 52.0, 0.9)]
    bench.starts = {name: Timing.of([seconds]) for name, seconds in STARTED.items()}
    bench.prefill = [
        Prefill(side, 256, Timing.of([seconds]), 1) for side, seconds in (("kvorum", 1.0), ("llama.cpp", 2.0))
    ]
    wide = replace(FACTS, machine=replace(FACTS.machine, capability="AVX512 with VNNI, kernels avx512vnni"))
    found = {bound.what: bound for bound in bounds(bench, wide)}
    slots = found["W=8, tokens/s over llama.cpp"]
    assert slots.figure == pytest.approx(1.5)
    assert (slots.met, slots.where) == (False, "256 tokens")
    assert found["W=16, tokens/s over llama.cpp"].met is None
    assert found["W=8, tokens/s over transformers"].met is False
    assert found["a tick of W=8 over W=1"].met is False
    assert found["256 spans over one"].met is True
    assert found["prefill tokens/s over llama.cpp"].met is False
    assert found["perplexity over exact mode"].figure == pytest.approx(4)
    assert found["perplexity over exact mode"].met is False
    assert found["attention of W=8 over W=1"].limit == 1.6
    assert found["first token behind `import torch`"].figure == pytest.approx(1.1)
    assert (found["first token behind `import torch`"].met, found["what needs no model"].met) == (False, True)
    assert {bound.what for bound in bounds(bench, replace(FACTS, model="a folder"))} < set(found)
    narrow = {bound.what: bound for bound in bounds(bench, FACTS)}
    assert narrow["attention of W=8 over W=1"].limit == 2.2
    assert set(found) - set(narrow) == {"a tick of W=8 over W=1"}


@pytest.mark.parametrize(
    ("ours", "theirs", "met", "where"),
    [
        ({256: 0.010, 1024: 0.010}, {256: 0.013, 1024: 0.012}, True, "1,024 tokens"),
        ({256: 0.010, 1024: 0.010}, {256: 0.013, 1024: 0.011}, False, "1,024 tokens"),
        ({256: 0.006, 1024: 0.010}, {256: 0.006, 1024: 0.013}, True, "256 tokens"),  # 93% of 20 GB/s
        ({256: 0.010, 1024: 0.010}, {256: 0.013}, None, "1,024 tokens"),
        ({256: 0.010, 1024: 0.010}, {256: 0.011}, False, "256 tokens"),  # what is missed comes before what is unknown
    ],
)
def test_one_worker_is_faster_than_llama_cpp_or_as_fast_as_memory(
    ours: dict[int, float], theirs: dict[int, float], met: bool | None, where: str
) -> None:
    bench = Bench()
    for side, found in (("kvorum", ours), ("llama.cpp", theirs)):
        bench.ticks += [TeamTick(side, context, 1, Timing.of([seconds]), 1) for context, seconds in found.items()]
    bound = next(bound for bound in bounds(bench, FACTS) if bound.what.startswith("W=1"))
    assert (bound.met, bound.where) == (met, where)
    assert bound.asks == "at least 1.2 or 92%"
    assert bounds(Bench(), FACTS)[0].met is None


def test_a_processor_without_a_name_in_cpuinfo_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Linux on ARM, whose ``lscpu`` is one that this test writes."""
    tool = tmp_path / "lscpu"
    tool.write_text("#!/bin/sh\necho 'Architecture:  aarch64'\necho 'Model name:    Neoverse-N1'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(machine, "_cpuinfo", lambda: "CPU part\t: 0xd0c\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine.processor_name() == "Neoverse-N1"
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.processor_name() == (platform.processor() or platform.machine())


def test_tables_fit_eighty_columns() -> None:
    bench = planted()
    console = Console(file=StringIO(), width=80)
    show(bench, FACTS, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    row = next(line for line in text.splitlines() if line.startswith("llama.cpp") and " 8 " in line)
    assert row.split() == ["llama.cpp", "8", "50.0", "25.0-150", "160", "2.50x", "5"]
    ours = next(line for line in text.splitlines() if line.startswith("kvorum") and " 8 " in line)
    assert ours.split() == ["kvorum", "8", "20.0", "10.0-60.0", "400", "2.00", "7.4", "37%", "5"]
    assert "not met, 256 tokens" in text
    assert "come in 5.0 ms" in " ".join(text.split())
    assert "not measured" in text
    assert "Not shown" in text


def test_jobs_take_turns_and_slow_ones_sit_out_after_three() -> None:
    called: list[str] = []

    def job(name: str, seconds: float) -> float:
        called.append(name)
        return seconds

    found = interleaved({"a": lambda: job("a", 0.1), "b": lambda: job("b", 9.0)}, 5, 1.0)
    assert called == ["a", "b"] * 3 + ["a"] * 2
    assert found == {"a": [0.1] * 5, "b": [9.0] * 3}


def test_what_is_said_of_the_machine() -> None:
    said = machine.describe_machine(64)
    assert said.threads >= 1
    assert said.versions["torch"]
    assert said.processor
    assert 1e8 < said.bandwidth < 1e13
    assert 1e8 < machine.bandwidth(64, 2) < 1e13
    assert 0 < machine.resident() <= machine.peak()


def test_peak_memory_is_of_the_time_asked_about() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux forgets a peak")
    code = (
        "from kvorum.bench.machine import forget_peak, peak; forget_peak(); before = peak(); "
        "held = bytearray(b'x') * 2**26; grown = peak() - before; del held; forget_peak(); "
        "print(grown >> 20, peak() - before >> 20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, left = map(int, done.stdout.split())
    assert grown > 60
    assert left < 32


def test_a_crowd_counts_its_cache(tiny: str) -> None:
    engine = Engine.load(tiny, kv_tokens=4096)
    said = Shared(engine).crowd(teams=3, workers=2, context=32, repeats=2)
    assert said.slots == 3 * (32 + 2 * 16)  # pages of 16, own blocks of three tokens
    assert said.computed == engine.pool.bytes_per_token
    assert said.tick.repeats == said.plan.repeats == 2
    assert said.first_plan > 0


def test_jobs_grow_by_two_tokens_a_turn(tiny: str) -> None:
    engine = Engine.load(tiny, kv_tokens=8192)
    server = Server(Shared(engine))
    server.read(tokens(engine.shape.vocab, 64))
    server.open("cell", workers=3, spare=8)
    before = engine.ledger.decoded
    assert server.tick("cell") > 0
    assert engine.ledger.decoded - before == 2 * 3
    assert server.peak() > 0
    server.close("cell")
    server.open("many", "spans", count=16, workers=2)
    server.tick("many")
    server.close("many")


def test_loss_of_a_mode_against_itself_and_another(tiny: str) -> None:
    exact = Engine.load(tiny, kv_tokens=1024, quantize=None, dtype="float32")
    truth = score(exact, text(), 200)
    again = score(exact, text(), 200, at_once=16)
    same = quality.loss(truth, again, 16)
    assert same.tokens == 199
    assert same.loss == pytest.approx(0, abs=1e-4)
    assert same.agreement > 0.98
    assert 1 < same.exact < 1e4
    worse = replace(truth, nll=[x + math.log(1.5) for x in truth.nll], likeliest=[-1] * 199)
    assert quality.loss(truth, worse, 16).loss == pytest.approx(0.5)
    assert quality.loss(truth, worse, 16).agreement == 0


def test_the_text_is_long_enough() -> None:
    assert len(text()) > 4 * quality.TOKENS


def asked_of(model: str) -> Asked:
    return Asked(model, (16,), (1,), ("transformers",), repeats=1, limit=60, heavy=10**6)


def it_dies_and_says_its_last_words(side: Process) -> None:
    with pytest.raises(BenchError, match="its process ended: KeyError: 'nobody'"):
        side.ask(Server.tick, key="nobody")
    assert not side.alive
    with pytest.raises(BenchError, match="its process ended"):
        side.ask(Server.peak)


@pytest.mark.slow
def test_processes_that_refuse_live_and_those_that_are_slow_or_die_say_so(tiny: str) -> None:
    with pytest.raises(BenchError, match="There is no file or folder"):
        Process(SideOptions("kvorum", asked_of("/no/such/folder"), threads=1, kv_tokens=64))
    asked = asked_of(tiny)
    with Process(SideOptions("kvorum", asked, threads=1, kv_tokens=128)) as side:
        assert 0 < side.memory.before < side.memory.after
        with pytest.raises(BenchError, match="free"):
            side.ask(Server.read, ids=[5] * 500)
        assert side.alive
        assert side.ask(Server.read, ids=[5] * 50) > 0
        bench = Bench()
        both = {"kvorum": side, "transformers": Process(SideOptions("transformers", asked, threads=1, kv_tokens=1))}
        comparison = Comparison(both, asked, FACTS, bench, progress=lambda words: None)
        with comparison.guarded("transformers", "a step"):
            both["transformers"].ask(Server.read, 0.0, ids=[5] * 50)
        assert set(comparison.sides) == {"kvorum"}
        assert bench.left_out == ["transformers, a step: it took longer than 0 s"]
        comparison.grid()
        assert [cell.side for cell in bench.ticks] == ["kvorum"]
        with pytest.raises(BenchError, match="free"):  # 128 slots
            Session(asked, progress=lambda words: None).spans(side, FACTS.vocab)
        it_dies_and_says_its_last_words(side)


@pytest.mark.slow
def test_a_team_has_its_first_token_within_what_the_command_may_spend(tiny: str) -> None:
    assert 0 < start.first_token(asked_of(tiny), repeats=1).median < start.SECONDS


def test_a_whole_run(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    words = ["bench", "-m", tiny, "--context", "64,32", "-w", "1,3", "--repeats", "2", "--heavy", "100"]
    words += ["--spans", "--quality", "--json", "-o", str(file), "--plot", str(picture)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert json.loads(file.read_text()) == found
    assert "llama.cpp is left out" in err
    assert "[4/4] 3 workers behind 64 tokens" in err
    cells = {(cell["side"], cell["context"], cell["workers"]) for cell in found["ticks"]}
    ours = {("kvorum", context, workers) for context in (32, 64) for workers in (1, 3)}
    assert cells == ours | {("transformers", 32, 1), ("transformers", 32, 3), ("transformers", 64, 1)}  # 192 is heavy
    assert "transformers, 3 workers behind 64 tokens: above --heavy" in found["left_out"]
    for cell in found["ticks"]:
        assert 0 < cell["tick"]["min"] <= cell["tick"]["median"] <= cell["tick"]["max"]
        assert math.isfinite(cell["tokens_per_second"])
        assert cell["peak"] > found["loaded"][cell["side"]]["before"]
    assert {row["side"] for row in found["prefill"]} == {"kvorum", "transformers"}
    assert [row["spans"] for row in found["spans"]] == [1, 16, 64, 256]
    assert [row["at_once"] for row in found["quality"]] == [256, 16]
    assert all(set(bound) >= {"what", "limit", "figure", "met"} for bound in found["bounds"])
    assert (found["crowd"], found["start"], found["attention"]) == (None, None, [])
    for name in ("weight_bytes", "bytes_per_token"):
        assert found["about"][name] > 0
    assert found["about"]["machine"]["bandwidth"] > 0
    assert "32 shared tokens" in picture.read_text() or "<svg" in picture.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--context", "0"], "--context takes whole numbers above 0"),
        (["--workers", "two"], "--workers takes whole numbers above 0"),
        (["--repeats", "0"], "--repeats must be 1 or more"),
        (["--limit", "nan"], "--limit must be 1 or more"),
        (["--peers", "vllm9"], "There is no peer 'vllm9'"),
        (["-o", "/no/such/folder/x.json"], "does not exist"),
        (["--plot", "x.bmp"], "A plot is written as .png, .svg, .pdf"),
        (["-m", "smollm3"], "smollm2-135m"),
        (["--draft", "smollm2-135m"], "--draft is measured with --speculation"),
        (["--caches", "--harness"], "--harness and --caches are measured one at a time"),
        (["--caches", "--kv-dtype", "int8"], "leave --kv-dtype out"),
    ],
)
def test_wrong_use_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("shared", [False, True])
def test_llama_cpp_in_both_forms(tmp_path: Path, shared: bool) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    from kvorum.bench.engines.llama_cpp import Slots
    from kvorum.models.cache_folder import entry_folder
    from kvorum.models.catalogue import lookup

    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(BadRequest, match="cannot read"):
        Slots(file, shared=shared, threads=1)
    gguf = entry_folder(lookup("smollm2-135m")).gguf
    if not gguf.exists():
        pytest.skip("smollm2-135m is not in the cache")
    slots = Slots(gguf, shared=shared, threads=1)
    assert slots.read(list(range(100, 140))) > 0
    with slots.team(3, 4) as tick:
        tick()
        tick()
