"""`kvorum serve --backend vllm`: the replies of the local backend's server, and what becomes of it when a rank stands
still or dies, and on Ctrl-C while it works.

Real commands, two ranks, a tiny random model. Ctrl-C while nothing is asked: ``test_vllm_faults``. Not covered: GPUs,
replicas (``test_vllm_replica``).
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from spread_engines import MARKS, family, gone, shared_memory, soon, toy, workers

from serving import Process, Served
from toy_engine import VOCAB

pytestmark = MARKS
CACHE = ["--exact", "--kv-tokens", "65536"]
SPREAD = ["--backend", "vllm", "--tensor-parallel", "2"]
NEVER_ENDS = {"logit_bias": {str(VOCAB - 1): -100}}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Name two rivers."}], **NEVER_ENDS}
LONG: dict[str, Any] = {**CHAT, "temperature": 0, "max_tokens": 8000}
RUN: dict[str, Any] = {
    "program": "hogwild",
    "workers": 2,
    "budget": {"ticks": 1500},
    "seed": 3,
    "params": {"suppress_end": True},
    "sampling": {"temperature": 0.8},
}
PATIENCE = 40.0


@contextmanager
def serving(toy: Path, store: Path, *options: str) -> Iterator[Process]:
    """A server of the real command; nothing of it is left behind, whatever the test does."""
    process = Process(toy, store, *CACHE, *options, alone=True)
    process.up.http.timeout = 120.0
    pids = family(process.process.pid)
    try:
        yield process
    finally:
        process.up.http.close()
        if process.process.poll() is None:
            os.killpg(process.process.pid, signal.SIGKILL)
            process.process.communicate()
        assert gone(pids, 20.0)


@pytest.fixture(scope="module")
def both(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served]]:
    """A server on two ranks and one on the local backend."""
    folders = [tmp_path_factory.mktemp(name) for name in ("there", "here")]
    with serving(toy, folders[0], *SPREAD) as there, serving(toy, folders[1]) as here:
        yield there.up, here.up


def chat(server: Served, **more: Any) -> tuple[str, list[str], list[float]]:
    """The text of a reply, its tokens and their log-probabilities."""
    reply = server.post("/v1/chat/completions", {"model": server.model, **CHAT, "logprobs": True, **more})
    assert reply.status_code == 200, reply.text
    if more.get("stream"):
        lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
        assert lines[-1] == "[DONE]"
        parts = [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]
        text = "".join(part["delta"].get("content") or "" for part in parts)
        tokens = [token for part in parts if part.get("logprobs") for token in part["logprobs"]["content"]]
    else:
        (choice,) = reply.json()["choices"]
        text, tokens = choice["message"]["content"], choice["logprobs"]["content"]
    return text, [token["token"] for token in tokens], [token["logprob"] for token in tokens]


def wrote(server: Served, run: str) -> list[list[tuple[str, int]]]:
    """Who wrote which token, tick by tick."""
    ticks = [event for event in server.events(run) if event["event"] == "tick"]
    return [[(row["worker"], row["token"]) for row in tick["rows"]] for tick in ticks]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("how", [{"temperature": 0}, {"temperature": 0.8, "seed": 5}], ids=["greedy", "drawn"])
def test_chat_says_what_the_local_server_does(both: tuple[Served, Served], how: dict[str, float], stream: bool) -> None:
    there, here = (chat(server, max_tokens=40, stream=stream, **how) for server in both)
    assert there[:2] == here[:2]
    assert len(there[1]) == 40
    assert there[2] == pytest.approx(here[2], abs=1e-3)


def test_a_run_writes_the_tokens_of_the_local_server(both: tuple[Served, Served]) -> None:
    told = []
    for server in both:
        run = server.run(**RUN | {"budget": {"ticks": 60}})["id"]
        assert server.until(run, "finished", "failed")["status"] == "finished"
        told.append(wrote(server, run))
        assert server.free()
    assert told[0] == told[1]
    assert max(len(rows) for rows in told[0]) == 2


def stream(server: Served, begun: threading.Event, seen: list[str]) -> None:
    """Read a long reply to its end."""
    body = {"model": server.model, **LONG, "stream": True}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        for line in reply.iter_lines():
            if line:
                seen.append(line)
                begun.set()


def refused(server: Served, **more: Any) -> str:
    """The sentence of a refusal for an engine that is gone."""
    reply = server.post("/v1/chat/completions", {"model": server.model, **CHAT, "max_tokens": 4, **more})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_lost"), reply.text
    return str(reply.json()["error"]["message"])


def test_a_rank_that_stands_still(toy: Path, tmp_path: Path) -> None:
    """While it does, /health and all requests say so; one under way hears it after the patience, and a run is kept: the
    next server, of whatever backend, goes on with it."""
    whole = 0
    with serving(toy, tmp_path / "store", *SPREAD, "--patience", str(PATIENCE)) as process:
        server, ranks = process.up, workers(process.process.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGSTOP)
        assert soon(lambda: server.http.get("/health").status_code == 503, PATIENCE)
        assert server.http.get("/health").json()["trouble"] == "A worker process is stopped."
        assert refused(server) == "A worker process is stopped."
        os.kill(ranks[1], signal.SIGCONT)
        assert soon(lambda: server.http.get("/health").status_code == 200)
        run, seen, begun = server.run(**RUN)["id"], list[str](), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(stream, server, begun, seen)
            assert begun.wait(60)
            assert soon(lambda: server.show(run)["ticks"] > 10)
            os.kill(ranks[1], signal.SIGSTOP)
            reading.result(PATIENCE + 60)
        error = json.loads(seen[-1].removeprefix("data: "))["error"]
        assert error["code"] == "engine_lost"
        assert error["message"].startswith(f"A worker did not answer within {PATIENCE:g} seconds; its engine has ended")
        assert "data: [DONE]" not in seen
        shown = server.until(run, "paused", "finished", "failed", seconds=30)
        assert (shown["status"], shown["error"]["type"]) == ("paused", "engine_lost")
        assert server.http.get("/health").json()["trouble"] == refused(server)
        assert gone(ranks, 20.0)
        whole = shown["ticks"]
        assert 10 < whole < RUN["budget"]["ticks"]
    with serving(toy, tmp_path / "store") as process:
        assert process.up.until(run, "finished", "failed")["status"] == "finished"
        again = wrote(process.up, run)
        other = process.up.run(**RUN)["id"]
        assert process.up.until(other, "finished", "failed")["status"] == "finished"
        assert again == wrote(process.up, other)
        assert len(again) > whole


def test_a_rank_that_is_killed(toy: Path, tmp_path: Path) -> None:
    """A reply under way ends with the reason; the server stays, says so, and ends when it is told to."""
    with serving(toy, tmp_path / "store", *SPREAD) as process:
        server, pids = process.up, family(process.process.pid)
        seen, begun = list[str](), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(stream, server, begun, seen)
            assert begun.wait(60)
            os.kill(workers(process.process.pid)[0], signal.SIGKILL)
            reading.result(60)
        error = json.loads(seen[-1].removeprefix("data: "))["error"]
        assert error["code"] == "engine_lost"
        assert error["message"].startswith("A worker process has died")
        health = server.http.get("/health")
        assert (health.status_code, health.json()["trouble"]) == (503, error["message"])
        assert refused(server) == refused(server, stream=True) == error["message"]
        os.killpg(process.process.pid, signal.SIGINT)
        said = process.process.communicate(timeout=60)[1]
        assert process.process.returncode in (0, 130, -signal.SIGINT), said
        assert "Traceback" not in said
    assert gone(pids, 10.0)


@pytest.mark.parametrize("still", [False, True], ids=["works", "stands-still"])
def test_ctrl_c_on_a_busy_server_leaves_nothing(toy: Path, tmp_path: Path, still: bool) -> None:
    """Also where a rank does not answer, and the patience would be five minutes more."""
    with serving(toy, tmp_path / "store", *SPREAD, "--drain", "1") as process:
        server, pids = process.up, family(process.process.pid)
        shared = shared_memory(pids)
        assert shared
        run, seen, begun = server.run(**RUN | {"budget": {"ticks": 4000}})["id"], list[str](), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(stream, server, begun, seen)
            assert begun.wait(60)
            if still:
                os.kill(workers(process.process.pid)[1], signal.SIGSTOP)
            os.killpg(process.process.pid, signal.SIGINT)
            reading.result(60)
        said = process.process.communicate(timeout=60)[1]
        assert process.process.returncode in (0, 130, -signal.SIGINT), said
        assert "Traceback" not in said
        assert json.loads(seen[-1].removeprefix("data: "))["error"]["code"] == "server_stopping"
    assert gone(pids, 10.0)
    assert not [path for path in shared if path.exists()]
    with serving(toy, tmp_path / "store") as process:
        assert process.up.show(run)["status"] in ("running", "queued", "finished"), "it is not over"
