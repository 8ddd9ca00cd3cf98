"""Replicas under Ray Serve: ``make test-ray``; skipped where there is no Ray.

Covers: sessions keep to their replica, as do a talk and a block (saved, others have it, too), a replica that is killed
in the middle (all stored runs end, once, with the tokens of undisturbed ones, the sessions of the other stay where they
were, also when a new one has come, which has those of the killed one), places of which two replicas tell the same,
scaling down under load without an error, with whole replies (P104, P105) and no request counted afterwards (P106), one
``/metrics``, every wrong argument. Not covered: several machines, GPUs, `serve run` (``test_ray_commands``).
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

with warnings.catch_warnings(action="ignore"):  # Ray's own
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'kvorum[ray]', or make test-ray.")
    pytest.importorskip("ray.serve")

import ray_replicas
from ray_replicas import SESSIONS, cluster, names, processes

from kvorum.errors import BadRequest
from kvorum.serve.ray import ReplicaOptions
from kvorum.serve.ray_router import PLACE, SINCE, places
from postgres_server import Server, postgres
from tiny_folder import tiny_folder

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

BODY: dict[str, Any] = {
    "model": "tiny:hogwild-2",
    "problem": "Count to ten.",
    "params": {"final_tokens": 4},
    "budget": {"ticks": 150},
}


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({}, "'model'"),
        ({"model": "a", "replicas": "2"}, "one store"),
        ({"model": "a", "replicas": "0"}, "'replicas'"),
        ({"model": "a", "modle": "b"}, "'modle'"),
        ({"model": "a", "backend": "vlm"}, "'backend'"),
        ({"model": "a", "tensor_parallel": "2"}, "give backend=vllm"),
        ({"model": "a", "backend": "vllm", "tensor_parallel": "2", "pipeline_parallel": "2", "gpus": "1"}, "gpus=4"),
    ],
)
def test_what_is_wrong_is_named(args: dict[str, str], why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        ReplicaOptions.of(args)


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with postgres() as up:
        yield up


class Replicas(ray_replicas.Replicas):
    """An application that is up."""

    def start(self, session: str, **body: Any) -> tuple[str, str]:
        """A run; its id, and the replica that has it."""
        reply = self.http.post("/v1/runs", json={**BODY, **body}, headers={"x-session-id": session})
        assert reply.status_code == 201, reply.text
        return reply.json()["id"], reply.headers["x-kvorum-replica"]

    def until(self, run: str, session: str, status: str, seconds: float = 240) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while True:
            reply = self.http.get(f"/v1/runs/{run}", headers={"x-session-id": session})
            if reply.status_code == 200 and reply.json()["status"] == status:
                return dict(reply.json())
            assert time.monotonic() < end, reply.text
            time.sleep(0.1)

    def tokens(self, run: str, session: str) -> list[Any]:
        lines = self.http.get(f"/v1/runs/{run}/trace", headers={"x-session-id": session}).text.splitlines()
        return [[(r["worker"], r["token"]) for r in e["rows"]] for e in map(json.loads, lines) if e["event"] == "tick"]


@pytest.fixture(scope="module")
def replicas(database: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replicas, str]]:
    """Two, for all tests in the order in which they stand here: a start takes a minute of two processors."""
    monkeypatch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("replicas")
    monkeypatch.setenv("KVORUM_HOME", str(folder / "home"))
    url = database.fresh()
    name = url.rpartition("/")[2]
    try:
        with cluster() as port:
            args = {"model": str(tiny_folder(folder / "tiny")), "store": url, "replicas": "2", "cpus": "0.2"}
            given = {**args, "quantize": "none", "kv_tokens": "8192", "drain": "30", "requests": "4"}
            up = Replicas(given, port, (database, name))
            yield up, name
            up.http.close()
    finally:
        monkeypatch.undo()


def test_figures_are_those_of_all(replicas: tuple[Replicas, str]) -> None:
    up, _ = replicas
    homes = {home: session for session, home in up.homes().items()}

    def told(session: str) -> set[str]:
        text = up.http.get("/metrics", headers={"x-session-id": session}).text
        assert text.count("# TYPE kvorum_ticks_total counter") == 1
        return {line.split('"')[1] for line in text.splitlines() if line.startswith("kvorum_ticks_total{")}

    for session in homes.values():
        end = time.monotonic() + 60
        while told(session) != set(homes) and time.monotonic() < end:
            time.sleep(0.5)
        assert told(session) == set(homes)


def test_a_talk_and_a_saved_block_of_a_session(replicas: tuple[Replicas, str]) -> None:
    """Both stay where they began; from the other replica a talk goes on anew, and a block is had once it is saved."""
    up, _ = replicas
    here, there = ({"x-session-id": session} for session in {home: each for each, home in up.homes().items()}.values())
    asked = {"model": "tiny", "input": "Name two rivers, please.", "max_output_tokens": 6, "seed": 3}
    first = up.http.post("/v1/responses", json=asked, headers=here)
    assert first.status_code == 200, first.text
    cached = []
    for headers in (here, there):
        body = {**asked, "input": "And two more.", "previous_response_id": first.json()["id"]}
        reply = up.http.post("/v1/responses", json=body, headers=headers)
        assert reply.status_code == 200, reply.text
        assert (reply.headers["x-kvorum-replica"] == first.headers["x-kvorum-replica"]) == (headers is here)
        cached.append(reply.json()["usage"]["input_tokens_details"]["cached_tokens"])
    assert cached[0] > cached[1]
    block = up.http.post("/v1/blocks", json={"text": "The door code is 4711.", "sealed": True}, headers=here).json()
    path = f"/v1/blocks/{block['id']}"
    assert [up.http.get(path, headers=each).status_code for each in (here, there)] == [200, 404]
    assert up.http.post(f"{path}/save", headers=here).status_code == 200
    read = [up.http.get(path, headers=each).json() for each in (here, there)]
    assert read[0]["ids"] == read[1]["ids"] != []
    assert read[0]["text"] == read[1]["text"] == "The door code is 4711."


def test_a_replica_is_killed_in_the_middle(replicas: tuple[Replicas, str], database: Server) -> None:
    up, name = replicas
    sessions, homes = SESSIONS[:8], up.homes()
    assert all(up.whose(session) == homes[session] for session in sessions for _ in range(3))
    whole, _ = up.start(sessions[0], seed=0)
    up.until(whole, sessions[0], "finished")
    wanted = up.tokens(whole, sessions[0])
    begun = {}
    for session in sessions:
        run, home = up.start(session, seed=0)
        assert home == homes[session]
        begun[session] = run
    doomed = homes[sessions[0]]
    os.kill(processes()[doomed], signal.SIGKILL)
    time.sleep(1)
    held = f"SELECT run FROM claims WHERE holder = '{doomed}'"
    assert database.execute(held, name), "some of its runs were under way"
    database.execute(f"UPDATE claims SET until = 0 WHERE holder = '{doomed}'", name)  # half a minute goes by
    for session, run in begun.items():
        up.until(run, session, "finished")
        assert up.tokens(run, session) == wanted
    again = up.homes()
    (new,) = set(again.values()) - set(homes.values())
    assert again == {session: new if home == doomed else home for session, home in homes.items()}
    listed = up.http.get("/v1/runs", headers={"x-session-id": sessions[0]}).json()["data"]
    assert len(listed) == 1 + len(sessions), "nothing was begun twice"


def test_two_that_tell_the_same_place() -> None:
    """As may be once some of several were stopped: the older one keeps its sessions, whoever is told of first."""
    told = {"a": {PLACE: 1, SINCE: 20.0}, "b": {PLACE: 1, SINCE: 10.0}, "c": {PLACE: 0, SINCE: 30.0}}
    wanted = {"1": "b", "1 a": "a", "0": "c"}
    assert places(told) == places(dict(reversed(told.items()))) == wanted


def test_scaling_down_loses_no_request(replicas: tuple[Replicas, str]) -> None:
    """P104, P105, P106: with more requests than a replica takes, and a long one on each, which ends in the drain."""
    up, _ = replicas
    statuses: list[int] = []
    stop = threading.Event()
    homes = {home: session for session, home in up.homes().items()}

    def ask(session: str) -> None:
        with httpx.Client(base_url=up.http.base_url, timeout=120) as http:
            while not stop.is_set():
                body = {"model": "tiny", "prompt": "a", "max_tokens": 4}
                statuses.append(http.post("/v1/completions", json=body, headers={"x-session-id": session}).status_code)

    def long(session: str) -> None:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 300, "stream": True, "seed": 3}
        reply = up.http.post("/v1/completions", json=body, headers={"x-session-id": session})
        told.append((reply.headers["x-kvorum-replica"], re.findall('"text": ?("[^"]*")', reply.text)))
        assert reply.text.rstrip().endswith("[DONE]")

    told: list[tuple[str, list[str]]] = []
    threads = [threading.Thread(target=ask, args=(SESSIONS[at % 8],)) for at in range(12)]
    threads += [threading.Thread(target=long, args=(session,)) for session in homes.values()]
    for thread in threads:
        thread.start()
    run, _ = up.start(SESSIONS[0], budget={"ticks": 200})
    up.scale(1)
    end = time.monotonic() + 120
    while len(names()) > 1 and time.monotonic() < end:
        time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    (left,) = names()
    assert set(statuses) == {200}
    assert {home for home, _ in told} == set(homes)
    assert told[0][1] == told[1][1] != []
    assert up.until(run, SESSIONS[0], "finished")["ticks"] > 0
    actor = ray.get_actor(left, namespace="serve")
    end = time.monotonic() + 60
    while (counted := ray.get(actor.get_num_ongoing_requests.remote())) and time.monotonic() < end:
        time.sleep(0.2)
    assert counted == 0
