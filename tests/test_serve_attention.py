"""Whose words the workers of a served run attend to: what its trace tells over HTTP.

Covers shares against a dense forward pass of the plain transformers model, a team against the engine's own run, a fork,
and what is refused. Not covered: the tap and teams against the dense oracle (test_tap.py), the page's heat map
(test_page_finding.py).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from kvorum import programs
from kvorum.engine.budget import Budget
from kvorum.runs.start import arun
from serving import served


def seen(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "attention"]


def test_served_shares_are_those_of_a_dense_model(tmp_path: Path) -> None:
    engine = toy_engine.engine(name="toy")
    with served(engine, tmp_path) as up:
        run = up.run(program="vote", workers=2, seed=4, budget={"ticks": 9}, attention=1)["id"]
        assert up.until(run, "finished")["attention"] == 1
        events = up.events(run)
        fork = up.post(f"/v1/runs/{run}/fork", {"tick": 3}).json()
        up.until(fork["id"], "finished")
        assert seen(up.events(fork["id"])) == seen(events)
    prompt = next(event["ids"] for event in events if event["event"] == "prompt")
    own = {"Alice": prompt[-1:], "Bob": prompt[-1:]}
    model = toy_engine.llama(engine)
    model.set_attn_implementation("eager")
    looked = 0
    for event, told in zip((event for event in events if event["event"] == "tick"), seen(events), strict=True):
        if any(row["fed"] > 1 for row in event["rows"]):
            break  # from here on they are asked for an answer
        for row in told["rows"]:
            ids = torch.tensor([prompt[:-1] + own[row["worker"]]])
            layers = model(ids, output_attentions=True).attentions
            shares = [layer[0, :, -1].mean(0).split((len(prompt) - 1, len(own[row["worker"]]))) for layer in layers]
            whose = ([0, 1, 2], [0, 2, 1])[row["worker"] == "Bob"]
            expected = torch.tensor([[float(shared.sum()), float(mine.sum()), 0.0] for shared, mine in shares])
            assert torch.tensor(row["shares"])[:, whose] == pytest.approx(expected, abs=2e-5)
            looked += 1
        own = {row["worker"]: own[row["worker"]] + [row["token"]] for row in event["rows"]}
    assert looked >= 8


@pytest.mark.forward
def test_a_served_team_tells_what_the_engine_tells_and_no_tap_is_a_refusal(tmp_path: Path) -> None:
    team: dict[str, Any] = {"workers": 3, "seed": 4}
    with served(toy_engine.engine(name="toy"), tmp_path / "a") as up:
        run = up.run(program="hogwild", **team, budget={"ticks": 16}, params={"final_tokens": 4}, attention=3)["id"]
        up.until(run, "finished")
        told = seen(up.events(run))
    own: list[Any] = []
    options: dict[str, Any] = {"budget": Budget(ticks=16), "final_tokens": 4, "tap": 3, "listener": own.append}
    asyncio.run(arun(toy_engine.engine(), programs.hogwild, "Count to ten.", **team, **options))
    assert len(told) > 2
    assert told == seen(own)
    with served(toy_engine.fake(name="toy"), tmp_path / "b") as up:
        refused = up.post("/v1/runs", {"problem": "Go.", "attention": 4})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "attention"
        assert "no attention to tap" in refused.json()["error"]["message"]
