"""What a trace says of blocks and views is enough to draw them: lengths reckoned from the events are the real ones.

Covers every program, latent steps on a tiny random model, and a replay. Not covered: drawing (test_page.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Result, Run, programs
from kvorum.store.events import Event

PROMPT = "Two and three?"
RUNS: list[tuple[str, int, dict[str, Any]]] = [
    ("solo", 1, {}),
    ("vote", 3, {}),
    ("hogwild", 3, {"suppress_markup": False}),
    ("hogwild", 3, {"layout": "interleaved"}),
    ("hogwild", 2, {"layout": "contiguous", "headers": "alone"}),
    ("relay", 3, {"latent_steps": 3}),
    ("relay", 3, {"form": "hierarchical", "latent_steps": 2, "private": ["Alice"]}),
    ("roleplay", 2, {"channel": "cache", "message_tokens": 8}),
    ("consensus", 3, {"channel": "cache", "proposal_tokens": 12, "vote_tokens": 8, "rounds": 3, "retries": 1}),
    ("tree", 4, {"tokens": 24, "step": " "}),
    ("thread", 1, {"mode": "gap", "buffer": 0, "chars": 12, "siblings": "forks"}),
    ("thread", 1, {"mode": "reencode", "buffer": 0, "chars": 12}),
    ("async_reasoning", 2, {"every": 5, "think": 30}),
    ("async_reasoning", 2, {"layout": "mutual", "every": 5, "think": 30}),
    ("outline", 1, {"sees": "live", "tokens": 12, "sections": 3}),
    ("branch", 3, {"tokens": 12}),
    ("patch", 1, {"documents": {"a": "One is here.", "b": "Two is there, as it is."}, "first": 4, "tokens": 8}),
]


def reckon(events: Sequence[Event]) -> dict[int, int]:
    """Each block's length after the last event, checked against what every view says on the way."""
    lengths: dict[int, int] = {}
    own: dict[str, int] = {}
    for event in events:
        if event["event"] == "forward":
            for block, tokens in event["rows"]:
                lengths[block] = lengths.get(block, 0) + tokens
        elif event["event"] == "move":
            assert sum(hi - lo for _, lo, hi in event["from"]) == event["tokens"]
            assert all(0 <= lo < hi <= lengths[block] for block, lo, hi in event["from"])
            lengths[event["block"]] = lengths.get(event["block"], 0) + event["tokens"]
        elif event["event"] == "tick":
            for row in event["rows"]:
                lengths[own[row["worker"]]] += row["fed"]
        elif event["event"] == "view":
            for name, lo, hi, number, size, *_ in event["items"]:
                if number is None:
                    assert (name, lo, size) == ("gap", 0, hi)
                else:
                    assert lengths.setdefault(number, size) == size, f"{name} has {size}"
                    assert lo <= (size if hi is None else hi) <= size
            last = event["items"][-1][3]
            assert last is not None
            own[event["worker"]] = last
    return lengths


def play(name: str, workers: int, given: dict[str, Any], **options: Any) -> tuple[Result, Run]:
    runs: list[Run] = []
    result = toy_engine.suited(name, kv_tokens=32768).run(
        programs.find(name),
        PROMPT,
        workers=workers,
        budget=Budget(ticks=150),
        seed=3,
        control=runs.append,
        **options,
        **given,
    )
    return result, runs[0]


@pytest.mark.parametrize(("name", "workers", "given"), RUNS)
def test_lengths_reckoned_from_a_trace_are_the_blocks(name: str, workers: int, given: dict[str, Any]) -> None:
    result, run = play(name, workers, given)
    lengths = reckon(result.trace.events)
    shown = [item for worker in run.workers for item in worker.view.items if hasattr(item, "block")]
    assert shown
    for item in shown:
        assert lengths[run.state.numbers.number(item.block)] == len(item.block)


def test_a_replay_numbers_blocks_alike() -> None:
    first, _ = play("hogwild", 3, {})
    again, _ = play("hogwild", 3, {}, replay=first.trace.events)
    kinds = ("view", "move", "forward")
    assert [e for e in first.trace.events if e["event"] in kinds] == [
        e for e in again.trace.events if e["event"] in kinds
    ]
