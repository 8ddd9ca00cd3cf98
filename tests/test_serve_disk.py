"""A disk that is really full: the store on a small file system of its own (tmpfs; skipped where none may be mounted).

Runs are held, new ones refused with the reason, nothing is lost or damaged, and all goes on once there is room again.
"""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from serving import Served, served

BODY: dict[str, Any] = {"model": "toy:vote-2", "budget": {"ticks": 150}, "seed": 3}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "kvorum", str(disk)], capture_output=True)
    if made.returncode:
        pytest.skip("No file system may be mounted here.")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def tokens(server: Served, run: str) -> list[list[int]]:
    return [[row["token"] for row in event["rows"]] for event in server.events(run) if event["event"] == "tick"]


def test_a_full_disk_holds_runs_and_lets_them_go(small: Path) -> None:
    torch.set_num_threads(1)
    store = small / "store"
    with served(toy_engine.fake(name="toy", kv_tokens=16384), store) as server:
        whole = server.run(**BODY)["id"]
        server.until(whole, "finished")
        run = server.run(**BODY, paused=True)["id"]
        server.until(run, "paused")
        server.post(f"/v1/runs/{run}/step", {"ticks": 5})
        while server.show(run)["ticks"] < 5:
            time.sleep(0.01)
        filler = fill(small)
        assert server.post(f"/v1/runs/{run}/resume").status_code == 200
        shown = server.until(run, "paused")
        assert shown["error"]["type"] == "store_unavailable"
        assert "full" in shown["error"]["message"]
        refused = server.post("/v1/runs", {"problem": "x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert "full" in refused.json()["error"]["message"]
        block = server.post("/v1/blocks", {"name": "notes", "text": "The code is 4711. " * 40}).json()["id"]
        assert server.post(f"/v1/blocks/{block}/save").status_code == 503
        assert server.post("/v1/completions", {"model": "toy", "prompt": "a", "max_tokens": 3}).status_code == 200
        assert server.http.get("/health").json()["status"] == "degraded"
        held = len(tokens(server, run))
        assert held >= 5
        assert tokens(server, whole)[:held] == tokens(server, run)
        filler.unlink()
        server.until(run, "finished")
        assert tokens(server, run) == tokens(server, whole)
        assert server.post(f"/v1/blocks/{block}/save").status_code == 200
        assert server.http.get("/health").json()["status"] == "ok"
    opened = sqlite3.connect(store / "runs.sqlite")
    assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert opened.execute("SELECT count(*) FROM runs WHERE status = 'finished'").fetchone() == (2,)
    opened.close()
