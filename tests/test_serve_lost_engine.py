"""A server whose model's processes die or stand still: who asks is told, runs are kept for the next server, and the
server can be ended.

By a backend without a model that fails as processes do; ``tests/vllm/test_vllm_serve.py`` has real ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from breakable import WHY, Breakable, breakable
from serving import Served, served

END = toy_engine.VOCAB - 1
RUN: dict[str, Any] = {
    "program": "hogwild",
    "workers": 2,
    "budget": {"ticks": 60},
    "seed": 3,
    "params": {"suppress_end": True},
    "sampling": {"temperature": 0.8},
}
ASKED: dict[str, Any] = {"model": "toy", "prompt": "a", "max_tokens": 40, "seed": 1, "logit_bias": {END: -100}}


def wrote(server: Served, run: str) -> list[list[tuple[str, int]]]:
    """Who wrote which token, tick by tick."""
    ticks = [event for event in server.events(run) if event["event"] == "tick"]
    return [[(row["worker"], row["token"]) for row in tick["rows"]] for tick in ticks]


def test_a_run_goes_on_with_the_next_server(tmp_path: Path) -> None:
    with served(breakable(Breakable()), tmp_path / "whole") as up:
        run = up.run(**RUN)["id"]
        assert up.until(run, "finished", "failed")["status"] == "finished"
        whole = wrote(up, run)
    with served(breakable(Breakable(dies=30)), tmp_path / "store") as up:
        run = up.run(**RUN)["id"]
        shown = up.until(run, "paused", "finished", "failed")
        assert (shown["status"], shown["error"]["type"]) == ("paused", "engine_lost")
        assert shown["error"]["message"].startswith(WHY)
        begun = wrote(up, run)
        assert 10 < len(begun) < len(whole)
        assert begun == whole[: len(begun)]
        assert up.post(f"/v1/runs/{run}/pause").status_code == 409
        health = up.http.get("/health")
        assert (health.status_code, health.json()["trouble"]) == (503, WHY)
        for path, body in (("/v1/completions", ASKED), ("/v1/runs", {"problem": "Count.", **RUN})):
            reply = up.post(path, body)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_lost")
            assert reply.json()["error"]["message"] == WHY
            assert int(reply.headers["retry-after"]) >= 1
        assert len(up.http.get("/v1/runs").json()["data"]) == 1, "one that cannot begin is not stored"
    with served(breakable(Breakable()), tmp_path / "store") as up:
        assert up.until(run, "finished", "failed")["status"] == "finished"
        assert wrote(up, run) == whole


@pytest.mark.parametrize("stream", [False, True])
def test_who_is_being_replied_to_is_told(stream: bool, tmp_path: Path) -> None:
    with served(breakable(Breakable(dies=20)), tmp_path) as up:
        reply = up.post("/v1/completions", ASKED | {"stream": stream})
    if not stream:
        assert reply.status_code == 503
        error = reply.json()["error"]
    else:
        lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
        assert len(lines) > 2
        assert "[DONE]" not in lines
        error = json.loads(lines[-1])["error"]
    assert error == {"message": WHY, "type": "server_error", "param": None, "code": "engine_lost"}


def test_who_watches_a_run_is_told(tmp_path: Path) -> None:
    """Also who asks a team by the chat's door."""
    with served(breakable(Breakable(dies=30)), tmp_path) as up:
        words = [{"role": "user", "content": "Count."}]
        team = {"model": "toy:hogwild-2", "messages": words, "max_tokens": 400, "logit_bias": {END: -100}}
        reply = up.post("/v1/chat/completions", team)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_lost")


def test_a_tick_that_stands_still_does_not_keep_the_server(tmp_path: Path) -> None:
    """What is told to stop waits a while for the tick, then ends the processes that compute it."""
    backend = Breakable(stands=20)
    with served(breakable(backend), tmp_path / "store") as up:
        run = up.run(**RUN)["id"]
        assert backend.still.wait(30)
    assert backend.closed.is_set()
    with served(breakable(Breakable()), tmp_path / "store") as up:
        assert up.until(run, "finished", "failed")["status"] == "finished"
