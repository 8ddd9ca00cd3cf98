"""Replicas under Ray Serve: ``make test-ray``; skipped where there is no Ray.

Covers: sessions keep to their replica, a replica that is killed in the middle (all stored runs end, once, with the
tokens of undisturbed ones, the sessions of the other stay where they were), scaling down under load without an error;
every wrong argument. Not covered: several machines, GPUs.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

with warnings.catch_warnings(action="ignore"):  # Ray's own
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'kvorum[ray]', or make test-ray.")
    serve = pytest.importorskip("ray.serve")

from kvorum.errors import BadRequest
from kvorum.serve.ray import ReplicaOptions, app
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
    ],
)
def test_what_is_wrong_is_named(args: dict[str, str], why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        ReplicaOptions.of(args)


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with postgres() as up:
        yield up


class Replicas:
    """An application that is up."""

    def __init__(self, args: dict[str, str]) -> None:
        self.args = args
        self.scale(int(args["replicas"]))
        self.http = httpx.Client(base_url="http://127.0.0.1:8000", timeout=120)

    def scale(self, replicas: int) -> None:
        serve.run(app({**self.args, "replicas": str(replicas)}), name="kvorum")

    def whose(self, session: str) -> str:
        return self.http.get("/v1/models", headers={"x-session-id": session}).headers["x-kvorum-replica"]

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


@pytest.fixture
def replicas(database: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Replicas, str]]:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    url = database.fresh()
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        args = {"model": str(tiny_folder(tmp_path / "tiny")), "store": url, "replicas": "2", "cpus": "0.5"}
        up = Replicas({**args, "quantize": "none", "kv_tokens": "8192", "drain": "5"})
        yield up, url.rpartition("/")[2]
        up.http.close()
    finally:
        serve.shutdown()
        ray.shutdown()


def names() -> list[str]:
    """Of the replicas that live, as Ray knows them."""
    found = [str(one["name"]) for one in ray.util.list_named_actors(all_namespaces=True)]
    return [name for name in found if name.startswith("SERVE_REPLICA::kvorum#kvorum#")]


def processes() -> dict[str, int]:
    """The processes of replicas, by the replica's id."""
    found = {}
    for name in names():
        actor = ray.get_actor(name, namespace="serve")
        found[name.rpartition("#")[2]] = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=30)
    return found


def test_a_replica_is_killed_in_the_middle(replicas: tuple[Replicas, str], database: Server) -> None:
    up, name = replicas
    sessions = [f"team-{at}" for at in range(8)]
    homes = {session: up.whose(session) for session in sessions}
    assert len(set(homes.values())) == 2
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
    for session, home in homes.items():
        if home != doomed:
            assert up.whose(session) == home
    listed = up.http.get("/v1/runs", headers={"x-session-id": sessions[0]}).json()["data"]
    assert len(listed) == 1 + len(sessions), "nothing was begun twice"


def test_scaling_down_loses_no_request(replicas: tuple[Replicas, str]) -> None:
    up, _ = replicas
    statuses: list[int] = []
    stop = threading.Event()

    def ask(session: str) -> None:
        with httpx.Client(base_url="http://127.0.0.1:8000", timeout=120) as http:
            while not stop.is_set():
                body = {"model": "tiny", "prompt": "a", "max_tokens": 4}
                statuses.append(http.post("/v1/completions", json=body, headers={"x-session-id": session}).status_code)

    threads = [threading.Thread(target=ask, args=(f"team-{at}",)) for at in range(4)]
    for thread in threads:
        thread.start()
    run, _ = up.start("team-0", budget={"ticks": 200})
    up.scale(1)
    end = time.monotonic() + 60
    while len(names()) > 1 and time.monotonic() < end:
        time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(names()) == 1
    assert set(statuses) == {200}
    assert up.until(run, "team-0", "finished")["ticks"] > 0
