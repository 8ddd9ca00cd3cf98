"""Bad input: requests made at random after the server's own description, and bodies that are nearly right."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from request_bodies import bodies, broken
from schemathesis.core.result import Ok
from server import MODEL, Server, report

ROUNDS = 5
LIMITS = ("--max-ticks", "4", "--max-tokens", "256", "--max-prompt", "512", "--kv-tokens", "8192")
"""So that a request that happens to be right is cheap, and the cache, whose memory is claimed as it is first written,
is soon written all over."""
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
PATIENCE = 600.0
"""Seconds after which a reply is taken for one that never comes."""


class Fuzz:
    """What was sent and what came back."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.statuses: Counter[int] = Counter()
        self.bad: list[str] = []
        self.slowest = 0.0
        self._choose = random.Random(0)
        self._there: dict[str, list[str]] = {}

    def nearly(self, path: str) -> Callable[[Any], None]:
        """What sends a body that is nearly right."""

        def once(body: Any) -> None:
            begun, text = time.monotonic(), json.dumps(body)
            try:
                reply = self.server.http.post(path, content=text, headers=HEADERS, timeout=PATIENCE)
            except httpx.HTTPError as error:
                self.bad.append(f"{path} {type(error).__name__}: {error} {text[:300]}")
                return
            self._take(path, begun, reply.status_code, f"{reply.text[:300]} {text[:300]}")

        return once

    def refresh(self) -> None:
        """Which runs and blocks there are."""
        for kind, path in (("run", "/v1/runs"), ("block", "/v1/blocks")):
            self._there[kind] = [one["id"] for one in self.server.http.get(path).json()["data"]]

    def once(self, case: schemathesis.Case[Any]) -> None:
        """Send one request. Most that name a run or block name one that there is: else all would end in 404."""
        for name, value in dict(case.path_parameters or {}).items():
            known = self._there.get(name)
            if known and value is not None and self._choose.random() < 0.7:
                case.path_parameters[name] = self._choose.choice(known)
        begun = time.monotonic()
        try:
            reply = case.call(timeout=PATIENCE)
        except Exception as error:  # raised to hypothesis it would be tried again, and called flaky
            self.bad.append(f"{case.method} {case.formatted_path} {type(error).__name__}: {error}")
            return
        self._take(f"{case.method} {case.formatted_path}", begun, reply.status_code, reply.text[:300])

    def _take(self, what: str, begun: float, status: int, told: str) -> None:
        """Count a reply."""
        self.slowest = max(self.slowest, time.monotonic() - begun)
        self.statuses[status] += 1
        if status >= 500 and status != 503:
            self.bad.append(f"{what} {status} {told}")

    def seed(self) -> None:
        """Some runs and blocks to begin with."""
        for n in range(4):
            name = f"{self.server.http.get('/health').json()['model']}:{('hogwild-2', 'vote-2', 'tree', 'solo-1')[n]}"
            self.server.run({"problem": "Count to ten.", "model": name, "paused": n % 2 == 0})
            self.server.http.post("/v1/blocks", json={"name": f"b{n}", "text": "The code is 4711."})

    def clean(self) -> None:
        """Delete all runs and blocks."""
        http = self.server.http
        while runs := http.get("/v1/runs", params={"limit": 200}).json()["data"]:
            for run in runs:
                http.delete(f"/v1/runs/{run['id']}")
        for block in http.get("/v1/blocks").json()["data"]:
            http.delete(f"/v1/blocks/{block['id']}")


def fuzz(folder: Path, count: int) -> None:
    """In rounds; behind each, all runs and blocks are deleted and the process is measured."""
    with Server(folder / "store", *LIMITS) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
        operations = [operation for operation in operations if not operation.path.endswith("/events")]
        work, sizes = Fuzz(server), [server.resident()]
        number = 0
        while sum(work.statuses.values()) < count:
            number += 1
            work.seed()
            _round(work, operations, max(1, -(-count // len(operations) // ROUNDS)))
            work.clean()
            sizes.append(server.resident())
            print(f"     round {number}: {work.statuses.total()} requests, {sizes[-1]:.0f} MiB", flush=True)
        print("     statuses:", dict(sorted(work.statuses.items())), *work.bad[:5], sep="\n     ")
        report("fuzzed requests", str(work.statuses.total()), str(count), work.statuses.total() >= count)
        report("no reply, or one of 500 and more but deliberate 503", str(len(work.bad)), "0", not work.bad)
        report("longest reply", f"{work.slowest:.1f} s", "no hang", work.slowest < 60)
        half = sizes[len(sizes) // 2]
        growth = sizes[-1] / half - 1
        report("resident size at the end over that in the middle", f"{100 * growth:+.1f} %", "<= 5 %", growth <= 0.05)
        kept = server.unaccounted()
        report("pages not accounted for afterwards", str(kept), "0", kept == 0)


def _round(work: Fuzz, operations: list[Any], each: int) -> None:
    limits = settings(
        max_examples=max(1, each // 2), deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for operation in operations:
        work.refresh()
        limits(given(case=operation.as_strategy())(work.once))()
    http = work.server.http
    for path in bodies(MODEL, block="", response=""):
        work.clean()  # a paused run holds what it may need, and others wait for it
        block = http.post("/v1/blocks", json={"text": "The code is 4711."}).json()["id"]
        response = http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "max_output_tokens": 2}).json()["id"]
        run = work.server.run({"problem": "Count.", "model": f"{MODEL}:solo-1", "paused": True})
        body = bodies(MODEL, block=block, response=response)[path]
        limits(given(broken(body))(work.nearly(path.format(run=run, block=block))))()
