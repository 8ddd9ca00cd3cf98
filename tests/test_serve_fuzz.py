"""Random requests to every route: no error of the server's, no file outside the store, no address but its own.

Two kinds, a few of each here and ten thousand in ``make soak PARTS=fuzz``: made after the server's description, and
bodies that a route takes, broken at random places however deep. Every file that is opened for writing in this process,
every connection and listener is watched through Python's audit events, which native libraries do not raise.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from request_bodies import bodies, broken
from schemathesis.core.result import Ok
from starlette.routing import BaseRoute, Mount, Route

import toy_engine
from serving import Served, served

HERE = ("127.0.0.1", "::1", "localhost")
MCP = {"Accept": "application/json, text/event-stream"}
RUN = {"problem": "Count.", "model": "toy:solo-1", "budget": {"ticks": 9}}


class Watch:
    """What this process wrote to, connected to and listened on while ``on``."""

    def __init__(self) -> None:
        self.on = False
        self.written: set[str] = set()
        self.reached: set[str] = set()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = args
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            if writes or (mode is None and isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
                self.written.add(os.fsdecode(path) if isinstance(path, str | bytes) else "")
        elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "sqlite3.connect"):
            self.written |= {os.fsdecode(one) for one in args if isinstance(one, str | bytes) and one}
        elif event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
            target = args[0] if event == "socket.getaddrinfo" else args[1]
            self.reached.add(str(target[0]) if isinstance(target, tuple) else str(target))
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            self.written.add(f"{event} {args[0]}")


WATCH = Watch()
sys.addaudithook(WATCH)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Served]:
    engine = toy_engine.fake(name="toy")
    with served(engine, store, ticks=40, tokens=64, prompt_tokens=1000) as up:
        yield up


@contextmanager
def watched(server: Served, store: Path) -> Iterator[list[str]]:
    """Takes the descriptions of failures; afterwards there are none, nothing was written elsewhere, no page is lost."""
    failures = list[str]()
    WATCH.written.clear()
    WATCH.reached.clear()
    WATCH.on = True
    try:
        yield failures
    finally:
        WATCH.on = False
    assert not failures
    own = (str(store), "/dev/", "/proc/")
    assert not [path for path in WATCH.written if path and not path.startswith(own) and ".hypothesis" not in path]
    assert WATCH.reached <= {*HERE, "None"}
    clean(server)
    assert server.free()


def clean(server: Served, keep: Sequence[str] = ()) -> None:
    """Delete all runs and blocks but those."""
    for kind in ("runs", "blocks"):
        for one in server.http.get(f"/v1/{kind}", params={"limit": 200}).json()["data"]:
            if one["id"] not in keep:
                server.http.delete(f"/v1/{kind}/{one['id']}")


def few(count: int) -> settings:
    """So many examples, the same on every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def operations(server: Served) -> list[Any]:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def routed(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """With those of routers that are included."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else routed(inner.routes)


def test_no_route_is_left_out(server: Served, operations: list[Any]) -> None:
    """All that the application routes is described, but for the page, the description itself and MCP."""
    described = {(op.method.upper(), op.path) for op in operations}
    taken = set[tuple[str, str]]()
    for route in routed(server.app.routes):
        if isinstance(route, APIRoute):
            taken |= {(method, route.path) for method in route.methods or ()}
        else:
            assert isinstance(route, Route | Mount)
            assert route.path in ("/openapi.json", "/page", "/mcp"), route.path
    assert taken - described == {("GET", "/")}
    taking = {op.path for op in operations if op.method == "post" and op.body}
    assert taking | {"/mcp"} == set(bodies("toy", block="b", response="r"))


def test_requests_after_the_description(server: Served, store: Path, operations: list[Any]) -> None:
    """Of streams of events the beginning."""
    with watched(server, store) as failures:
        for op in operations:

            @few(3)
            @given(case=op.as_strategy())
            def once(case: schemathesis.Case[Any]) -> None:
                with requests.request(**case.as_transport_kwargs(), stream=True, timeout=30) as reply:
                    if reply.status_code >= 500:
                        failures.append(f"{case.method} {case.formatted_path} {reply.status_code} {reply.text}")
                    elif not case.path.endswith("/events"):
                        assert reply.content is not None

            once()


def test_bodies_that_are_nearly_right(server: Served, store: Path) -> None:
    """Each is answered as it is; broken, it is refused or answered, and said to be an error in the route's form."""
    block = server.post("/v1/blocks", {"text": "The code is 4711."}).json()["id"]
    response = server.post("/v1/responses", {"model": "toy", "input": "Hi", "max_output_tokens": 2}).json()["id"]
    run = server.post("/v1/runs", {**RUN, "paused": True}).json()["id"]
    server.post(f"/v1/runs/{run}/step", {"ticks": 1})
    while not server.show(run)["ticks"]:
        time.sleep(0.01)  # else there is nothing to fork at
    statuses = set[int]()
    asked = [
        (path.format(run=run, block=block), body)
        for path, body in bodies("toy", block=block, response=response).items()
    ]
    with watched(server, store) as failures:
        for path, body in asked:
            reply = server.post(path, body, **MCP)
            assert reply.status_code in (200, 201, 202), (path, reply.text)
        for path, body in asked:
            clean(server, keep=(run, block))  # a paused run holds what it may need, and others wait for it
            few(10)(given(broken(body))(sent(server, path, failures, statuses)))()
    assert {200, 201, 400, 422} <= statuses


def sent(server: Served, path: str, failures: list[str], statuses: set[int]) -> Callable[[Any], None]:
    def once(body: Any) -> None:
        text = json.dumps(body)
        try:
            reply = server.http.post(path, content=text, headers={"Content-Type": "application/json", **MCP})
        except httpx.HTTPError as error:
            failures.append(f"{path} {type(error).__name__} {text[:400]}")
            return
        statuses.add(reply.status_code)
        if reply.status_code >= 500:
            failures.append(f"{path} {reply.status_code} {reply.text[:200]} {text[:600]}")

    return once
