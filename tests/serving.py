"""A real server for tests: uvicorn on a thread of this process, or `kvorum serve` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from fastapi import FastAPI

from kvorum import Engine
from kvorum.programs import REGISTRY
from kvorum.runs.program import Program
from kvorum.serve.app import create_app
from kvorum.serve.http_server import HttpServer
from kvorum.serve.model_source import ModelSource
from kvorum.serve.server import Server
from kvorum.serve.service import Service
from kvorum.serve.settings import Limits, ServerSettings

KEY = "a-key-for-tests"


class Served:
    """A server that is up. ``service`` and ``app`` only where it runs in this process."""

    def __init__(self, url: str, server: Server | None = None, app: FastAPI | None = None) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=60)
        self._server, self._app = server, app

    @property
    def service(self) -> Service:
        assert self._server is not None
        return self._server.first

    @property
    def app(self) -> FastAPI:
        assert self._app is not None
        return self._app

    @property
    def model(self) -> str:
        return str(self.http.get("/health").json()["model"])

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.http.post(path, json=body, headers=headers)

    def run(self, **body: Any) -> dict[str, Any]:
        """Start a run."""
        reply = self.post("/v1/runs", {"problem": "Count to ten.", **body})
        assert reply.status_code == 201, reply.text
        return dict(reply.json())

    def show(self, run: str) -> dict[str, Any]:
        return dict(self.http.get(f"/v1/runs/{run}").json())

    def until(self, run: str, *statuses: str, seconds: float = 300) -> dict[str, Any]:
        """The run once it has one of these statuses."""
        end = time.monotonic() + seconds
        while (shown := self.show(run))["status"] not in statuses:
            assert time.monotonic() < end, shown
            time.sleep(0.02)
        return shown

    def events(self, run: str) -> list[dict[str, Any]]:
        """Its trace."""
        return [json.loads(line) for line in self.http.get(f"/v1/runs/{run}/trace").text.splitlines()]

    def free(self, seconds: float = 10) -> bool:
        """Whether every page that no kept prompt takes is free again, within so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pages = self.http.get("/health").json()["pages"]
            if pages["free"] + pages["prefixes"] == pages["total"]:
                return True
            time.sleep(0.01)
        return False


@contextmanager
def served(
    engine: Engine,
    store: Path,
    *,
    key: str | None = None,
    programs: Sequence[Program] = (),
    place: Mapping[str, Any] = {},
    **limits: Any,
) -> Iterator[Served]:
    """A server for ``engine`` on a free port; it knows ``programs`` besides kvorum's own. ``place``: its settings."""
    with served_models([ModelSource.of(engine)], store, key=key, programs=programs, place=place, **limits) as up:
        yield up


@contextmanager
def served_models(
    sources: Sequence[ModelSource],
    store: Path,
    *,
    key: str | None = None,
    programs: Sequence[Program] = (),
    place: Mapping[str, Any] = {},
    **limits: Any,
) -> Iterator[Served]:
    """The same for several models, the first of which is loaded at once."""
    with patch.dict(REGISTRY, {program.name: program for program in programs}):
        settings = ServerSettings(store=store, **{"port": 0, "drain": 0, **place}, api_key=key, limits=Limits(**limits))
        app = create_app(sources, settings)
        server = HttpServer(app, settings)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        up = Served(f"http://127.0.0.1:{server.port}", app.state.server, app)
        try:
            yield up
        finally:
            up.http.close()
            server.should_exit = True
            thread.join(20)


class Process:
    """`kvorum serve` as a process, to be killed. ``alone``: in a group of processes of its own, which a test can send
    what a terminal sends to all."""

    def __init__(self, model: Path | str, store: Path | str, *options: str, alone: bool = False) -> None:
        words = [
            sys.executable,
            "-m",
            "kvorum.cli",
            "serve",
            "--model",
            str(model),
            "--port",
            "0",
            "--store",
            str(store),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        self.process = subprocess.Popen(
            [*words, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=alone,
        )
        assert self.process.stdout is not None
        while "http://" not in (line := self.process.stdout.readline()):
            if not line:
                raise AssertionError(self.process.communicate()[1])
        self.up = Served(line.split()[-1].rstrip("/"))

    def end(self, how: signal.Signals = signal.SIGKILL) -> str:
        """End it; what it said on standard error."""
        self.up.http.close()
        self.process.send_signal(how)
        return self.process.communicate(timeout=30)[1]


def together(server: Served, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    """All at the same time."""

    async def all_of_them() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            return await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))

    return asyncio.run(all_of_them())


def text_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["text"])
