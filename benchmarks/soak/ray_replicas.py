"""Two replicas of a model under Ray Serve, with a PostgreSQL of their own, up; where they are and whose a session is.

For an environment with Ray: ``make soak-ray``, ``make test-ray``.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve

from kvorum.serve.ray import app

sys.path.append(str(Path(__file__).parents[2] / "tests"))

from postgres_server import Server as Database
from postgres_server import postgres

SESSIONS = [f"session-{at}" for at in range(16)]


class Replicas:
    """An application that is up. ``database``: the server of its store, and the store's name there."""

    def __init__(self, args: dict[str, str], port: int, database: tuple[Database, str]) -> None:
        self.args, self.address, self.database = args, ("127.0.0.1", port), database
        self.scale(int(args["replicas"]))
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)

    def scale(self, replicas: int) -> None:
        serve.run(app({**self.args, "replicas": str(replicas)}), name="kvorum")

    def whose(self, session: str) -> str:
        """The replica that replies to a session; empty where none does."""
        return str(self.http.get("/v1/models", headers={"x-session-id": session}).headers.get("x-kvorum-replica", ""))

    def homes(self, seconds: float = 600) -> dict[str, str]:
        """Whose each of SESSIONS is, once there are two replicas and two rounds told the same."""
        end, before = time.monotonic() + seconds, dict[str, str]()
        while True:
            found = {session: self.whose(session) for session in SESSIONS}
            if found == before and len(set(found.values())) == 2 and "" not in found.values():
                return found
            assert time.monotonic() < end
            before = found
            time.sleep(0.5)

    def select(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the store."""
        server, name = self.database
        return list(server.execute(statement, name))


def names() -> list[str]:
    """Of the replicas that live, as Ray knows them."""
    found = [str(one["name"]) for one in ray.util.list_named_actors(all_namespaces=True)]
    return [name for name in found if name.startswith("SERVE_REPLICA::kvorum#kvorum#")]


def processes() -> dict[str, int]:
    """The processes of replicas, by the replica's id."""
    found = {}
    for name in names():
        actor = ray.get_actor(name, namespace="serve")
        found[name.rpartition("#")[2]] = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=60)
    return found


@contextmanager
def cluster() -> Iterator[int]:
    """A Ray cluster of this process's, while within; the port of its proxy. Both stay small and patient."""
    for limit in ("READY_CHECK_TIMEOUT_S", "HEALTH_CHECK_TIMEOUT_S"):  # else a busy machine takes its proxy for hung
        os.environ[f"RAY_SERVE_PROXY_{limit}"] = "120"
    with closing(socket.socket()) as place:
        place.bind(("127.0.0.1", 0))
        port = int(place.getsockname()[1])
    memory = 100 * 2**20
    ray.init(address="local", num_cpus=1, object_store_memory=memory, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield port
    finally:
        serve.shutdown()
        ray.shutdown()


@contextmanager
def replicas(model: str, **args: str) -> Iterator[Replicas]:
    """Two of ``model``, in a cluster with a database."""
    with postgres() as database, cluster() as port:
        url = database.fresh()
        given = {"model": model, "store": url, "replicas": "2", "cpus": "0.2", **args}
        up = Replicas(given, port, (database, url.rpartition("/")[2]))
        try:
            yield up
        finally:
            up.http.close()
