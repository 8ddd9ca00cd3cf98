"""`kvorum serve` as a process, and what the soak asks of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

MODEL = "smollm2-135m"
LIVE = ("queued", "running", "paused")


@dataclass(frozen=True)
class Moment:
    """What a server has done so far: tokens through the model, ticks and their rows, seconds in ticks; and the time."""

    tokens: float
    ticks: float
    rows: float
    seconds: float
    time: float


class Server:
    """A server of MODEL, up."""

    def __init__(self, store: Path, *options: str) -> None:
        words = [sys.executable, "-m", "kvorum.cli", "serve", "--model", MODEL, "--port", "0", "--store", str(store)]
        self.log = (store.parent / "log.txt").open("a")
        self.process = subprocess.Popen([*words, *options], stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1].rstrip("/")
        self.http = httpx.Client(base_url=self.url, timeout=120)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill it."""
        self.http.close()
        self.process.send_signal(how)
        self.process.wait(30)
        self.log.close()

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.rpartition("/")[2].rpartition(":")
        return host, int(port)

    def pages(self) -> dict[str, int]:
        return dict(self.http.get("/health").json()["pages"])

    def unaccounted(self) -> int:
        """Pages that neither are free nor hold prompts for later, once nothing goes on."""
        pages = self.pages()
        return pages["total"] - pages["free"] - pages["prefixes"]

    def resident(self) -> float:
        """MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    def metrics(self) -> dict[str, float]:
        lines = [line for line in self.http.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def now(self) -> Moment:
        told, prefix = self.metrics(), "kvorum_tick"
        return Moment(
            told.get('kvorum_tokens_total{kind="all"}', 0.0), told["kvorum_ticks_total"], told[f"{prefix}_rows_sum"],
            told[f"{prefix}_seconds_sum"], time.monotonic(),
        )  # fmt: skip

    def run(self, body: dict[str, Any]) -> str:
        """Start a run; its id."""
        return str(self.http.post("/v1/runs", json=body).json()["id"])

    def status(self, run: str) -> str:
        return str(self.http.get(f"/v1/runs/{run}").json()["status"])

    def wait(self, run: str, seconds: float = 600) -> str:
        """A run's status once it is over."""
        end = time.monotonic() + seconds
        while (status := self.status(run)) in LIVE:
            assert time.monotonic() < end, f"{run} still {status}"
            time.sleep(0.05)
        return status

    def trace(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.http.get(f"/v1/runs/{run}/trace").text.splitlines()]

    def tokens(self, run: str) -> list[list[int]]:
        """A run's tokens, tick by tick."""
        return [[row["token"] for row in event["rows"]] for event in self.trace(run) if event["event"] == "tick"]


def report(what: str, figure: str, bound: str = "", held: bool = True) -> None:
    """One line."""
    print(f"{'ok  ' if held else 'MISS'} {what:62} {figure:>20}   {bound}", flush=True)
