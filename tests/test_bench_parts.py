"""Parts of `kvorum bench` beside its ticks: caches in turns, everything with one command, and the bounds of each.

On a tiny model. Not covered: how long anything takes.
"""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from kvorum.bench.bound import Bound
from kvorum.bench.caches import Caches, CacheTicks
from kvorum.bench.caches_report import caches_bounds
from kvorum.bench.compare import fitting
from kvorum.bench.fanout.bounds import fanout_bounds
from kvorum.bench.fanout.report import show_fanout
from kvorum.bench.fanout.session import Fanout
from kvorum.bench.machine import describe_machine
from kvorum.bench.speculation import Gain
from kvorum.bench.speculation_report import gains_bounds
from kvorum.cli import main
from tiny_folder import tiny_folder

CODER = "qwen2.5-coder-1.5b"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("tiny")))


def test_a_ratio_is_that_of_the_same_rounds() -> None:
    slow_spell = Caches()
    slow_spell.ticks = [
        CacheTicks("float32", 8128, 1, [0.1, 0.4, 0.1, 0.1], 1),
        CacheTicks("int8", 8128, 1, [0.08, 0.32, 0.05, 0.08], 1),
    ]
    found = slow_spell.times_full("int8", 8128, 1)
    assert found is not None
    assert found.median == pytest.approx(1.25)
    assert found.low == pytest.approx(1.25)
    assert found.high == pytest.approx(1.4375)
    assert slow_spell.times_full("float16", 8128, 1) is None
    (bound,) = caches_bounds(slow_spell)
    assert (bound.met, bound.where) == (False, "8,128 tokens")
    slow_spell.ticks = [CacheTicks("float32", 256, 1, [0.2], 1), CacheTicks("int8", 256, 1, [0.1], 1)]
    assert slow_spell.times_full("int8", 256, 1) == (2.0, 2.0, 2.0)
    assert caches_bounds(slow_spell)[0].met is None, "it is one of long contexts"


def test_a_context_fits_the_model() -> None:
    assert fitting(8192, None, 100) == fitting(8192, 32768, 100) == 8192
    assert fitting(8192, 8192, 62) == 8128


def test_caches_take_turns(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "caches.json"
    words = ["bench", "--caches", "-m", tiny, "--context", "64", "-w", "1,2", "--repeats", "3", "-o", str(file)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "times as fast" in shown
    found = json.loads(file.read_text())
    cells = [(one["cache"], one["workers"]) for one in found["ticks"]]
    assert sorted(cells) == sorted((cache, workers) for cache in ("float32", "float16", "int8") for workers in (1, 2))
    assert all(len(one["seconds"]) == 3 and one["times_float32"] for one in found["ticks"])
    sizes = found["bytes_per_token"]
    assert sizes["float32"] == 2 * sizes["float16"] > 2 * sizes["int8"]
    assert [one["cache"] for one in found["reads"]] == ["float32", "float16", "int8"]


def gain(kind: str, rows: int, ratio: float) -> Gain:
    return Gain(kind, 0.7, rows, rows > 1, with_it=0.1, without=0.1 * ratio, tokens=160, drafted=1, accepted=1)


def test_what_speculation_must_gain() -> None:
    gains = [gain("extraction", 1, 1.6), gain("code editing", 1, 1.4), gain("free text", 1, 0.99)]
    found = {bound.what: bound for bound in gains_bounds([*gains, gain("extraction", 4, 0.9)], CODER)}
    assert [bound.met for bound in found.values()] == [True, False, True, False]
    assert found["whatever is written, by however many"].where == "extraction, temperature 0.7, 4 rows, in step"
    assert [bound.met for bound in gains_bounds(gains, "smollm2-135m")] == [True, True]


def test_what_whole_jobs_must_gain() -> None:
    found = Fanout()
    for job, side, how, seconds in (
        ("ask", "kvorum", "at once", 10.0),
        ("ask", "kvorum", "from cold", 20.0),
        ("ask", "kvorum", "one by one", 26.0),
        ("ask", "llama-server, one by one", "text in the cache", 39.0),
        ("ask", "llama-server, 16 slots", "text in the cache", 25.0),
        ("ask", "llama-server, 16 slots", "from cold", 43.0),
        ("decide", "kvorum", "over HTTP, text kept", 2.0),
        ("decide", "llama-server, one by one", "text in the cache", 4.6),
    ):
        found.add(job, side, how, seconds)
    bounds = {bound.what: bound for bound in fanout_bounds(found, CODER)}
    assert {what: (bound.figure, bound.met) for what, bound in bounds.items()} == {
        "ask: over llama-server at its best": (2.5, False),
        "ask: over llama-server one by one": (3.9, True),
        "ask: from cold, over llama-server": (2.15, True),
        "ask: over kvorum one by one": (2.6, False),
        "decide: over llama-server": (2.3, True),
    }
    assert bounds["ask: over llama-server at its best"].where == "llama-server, 16 slots, text in the cache"
    assert fanout_bounds(found, "smollm2-135m") == []
    console = Console(file=StringIO(), width=80)
    show_fanout(found, CODER, describe_machine(16), console)
    assert "not met" in console.file.getvalue()  # type: ignore[attr-defined]


def test_one_of_two_bounds_is_enough() -> None:
    share = Bound("", 92, True, "%", 95.0, "")
    missed = Bound("x", 1.2, True, "", 1.1, "")
    assert (missed.met, Bound("x", 1.2, True, "", 1.1, "", share).met) == (False, True)
    assert Bound("x", 1.2, True, "", None, "", share).met is True
    assert Bound("x", 1.2, True, "", None, "", missed).met is None


@pytest.mark.slow
def test_everything_is_measured_part_by_part(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny model cannot do every part, and what it cannot is told; the rest goes on."""
    file = tmp_path / "all.json"
    words = ["bench", "--everything", "-m", tiny, "--context", "64", "-w", "1", "--repeats", "1", "--rounds", "1"]
    assert main([*words, "--peers", "none", "-o", str(file)]) == 0
    assert "all bounds" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert list(found["parts"]) == ["ticks", "caches", "speculation"]
    assert list(found["left_out"]) == ["jobs", "harness"]
    assert "cannot be filled" in found["left_out"]["jobs"]
    assert "pages" in found["left_out"]["harness"]
    assert found["parts"]["ticks"]["bounds"]


def test_what_would_be_no_good_later_is_refused_now(capsys: pytest.CaptureFixture[str], tiny: str) -> None:
    refused = {
        "no program": ["--everything", "--server", "/no/such/llama-server"],
        "Nobody answers": ["--everything", "--server", "http://127.0.0.1:9"],
        "no-such-model": ["--everything", "--draft", "no-such-model"],
        "--ask and --caches": ["--caches", "--ask"],
        "--plot": ["--caches", "--plot", "a.png"],
    }
    for why, words in refused.items():
        assert main(["bench", "-m", tiny, *words]) != 0
        assert why in capsys.readouterr().err
