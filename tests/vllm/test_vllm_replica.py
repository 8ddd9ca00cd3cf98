"""A replica under Ray Serve whose model is in two processes of vLLM's: it replies, another takes its place when one of
them dies, and they end with it.

Skipped where vLLM or Ray is not installed. Not covered: GPUs, several such replicas, several machines.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from spread_engines import MARKS, gone, soon, toy, workers

from kvorum import Engine, View

pytestmark = [
    *MARKS,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
PROMPT, TOKENS = "Two rivers", 12


async def text(engine: Engine) -> str:
    """What one process writes behind the prompt."""
    ids = engine.tokenizer(PROMPT)["input_ids"]
    told = engine.decode(View(engine.block()), ids=ids, max_tokens=TOKENS)
    return "".join([token.text async for token in told])


def test_a_replica_on_two_processes(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = pytest.importorskip("ray.serve", reason="Ray Serve is not installed here: make test-vllm")
    from ray_replicas import cluster, processes

    from kvorum.serve.ray import app

    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    wanted = asyncio.run(text(Engine.load(toy, quantize=None, dtype="float32", kv_tokens=4096)))
    told = {"model": str(toy), "backend": "vllm", "pipeline_parallel": "2", "dtype": "float32", "kv_tokens": "4096"}
    with cluster() as port:
        serve.run(app({**told, "cpus": "0.2"}), name="kvorum")
        (pid,) = processes().values()
        ranks = workers(pid)
        assert len(ranks) == 2
        body = {"model": toy.name, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}

        def asked() -> httpx.Response:
            return httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=120)

        reply = asked()
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"][0]["text"] == wanted != ""
        os.kill(ranks[0], signal.SIGKILL)
        assert gone(ranks[:1], 10.0)
        assert asked().json()["error"]["code"] == "engine_lost"
        assert soon(lambda: asked().status_code == 200, 240.0), "Ray looks every ten seconds"
        assert asked().json()["choices"][0]["text"] == wanted
        assert gone(ranks, 20.0)
        (other,) = processes().values()
        assert other != pid
        ranks = workers(other)
    assert gone(ranks, 20.0)
