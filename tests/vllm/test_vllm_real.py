"""Real models over two processes: a team of four writes the tokens of one process, greedily, while its steps move.

Half an hour on two cores; skipped where a model is not in the cache.
"""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from spread_engines import MARKS

import cli_calls
from kvorum import Budget, Engine, Sampling, programs
from kvorum.backends.vllm.spread import SpreadOptions
from kvorum.models.cache_folder import entry_folder
from kvorum.models.catalogue import lookup
from kvorum.store.traces import read

pytestmark = MARKS
TICKS, BESIDE, ANSWER = 200, 20, 4
"""Of the team; that read the prompt and close the steps; at most of the answer."""
PROBLEM = "Write a long story about a lighthouse keeper, in many short paragraphs with an empty line between them."


def run(engine: Engine, trace: Path) -> list[list[tuple[str, int]]]:
    """The tokens of the team's ticks."""
    engine.run(
        programs.find("hogwild"),
        PROBLEM,
        workers=4,
        sampling=Sampling(0.0, frequency_penalty=0.1),
        budget=Budget(ticks=TICKS + BESIDE + ANSWER),
        trace=trace,
        rules="published",
        ends="line",
        loops="go_on",
        suppress_end=True,
        final_tokens=ANSWER,
    )
    return [[(row["worker"], row["token"]) for row in rows] for rows in cli_calls.ticks(trace)]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("name", "spread"),
    [
        ("smollm2-135m", SpreadOptions(pipeline_parallel=2)),  # its 9 heads cannot be halved
        ("qwen2.5-coder-1.5b", SpreadOptions(tensor_parallel=2)),
    ],
)
def test_a_team_of_four_writes_the_tokens_of_one_process(name: str, spread: SpreadOptions, tmp_path: Path) -> None:
    if not entry_folder(lookup(name)).gguf.is_file():
        pytest.skip(f"{name} is not in the cache: kvorum pull {name}")
    here = Engine.load(name, quantize=None, dtype="float32", kv_tokens=16384)
    one = run(here, tmp_path / "one.jsonl")
    del here
    gc.collect()
    there = Engine.load(name, backend="vllm", dtype="float32", kv_tokens=16384, **spread)
    try:
        assert run(there, tmp_path / "spread.jsonl") == one
    finally:
        there.backend.close()
    assert sum(len(rows) == 4 for rows in one) >= TICKS
    moves = [event for event in read(str(tmp_path / "one.jsonl")) if event["event"] == "move"]
    assert len(moves) >= 3
