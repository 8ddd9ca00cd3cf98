"""kvorum over HTTP in a comparison of whole jobs: a `kvorum serve` of its own process, asked as any client asks it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from kvorum.bench.fanout.http_json import REPLY_SECONDS, post_json
from kvorum.bench.fanout.jobs import TRUE, Statements
from kvorum.bench.fanout.peer import Replies
from kvorum.errors import BenchError
from kvorum.jsontypes import Json


class OurServer:
    """A server under ``url`` that offers ``model``."""

    def __init__(self, url: str, model: str) -> None:
        self._client, self._model = httpx.Client(base_url=url, timeout=REPLY_SECONDS), model

    def keep(self, job: Statements) -> str:
        """Encode the statements' text, as what a user has said, into a block. Returns its id."""
        messages: Json = [{"role": "user", "content": job.text}]
        return str(self._post("/v1/blocks", {"model": self._model, "messages": messages, "sealed": True})["id"])

    def decide(self, job: Statements, block: str = "") -> Replies:
        """All statements in one request about the kept ``block``, or about the text, which is encoded first."""
        questions: Json = [{"type": "predicate", "instructions": TRUE + said} for said in job.said]
        about: dict[str, Json] = {"view": [{"block": block}]} if block else {"input": job.text}
        started = time.perf_counter()
        answers = self._post("/v1/decisions", {"model": self._model, "questions": questions, **about})["answers"]
        spent = time.perf_counter() - started
        found = answers if isinstance(answers, list) else []
        shares = [one.get("probability") for one in found if isinstance(one, Mapping)]
        return Replies(spent, ["yes" if isinstance(share, float) and share > 0.5 else "no" for share in shares])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _post(self, path: str, body: Mapping[str, Json]) -> dict[str, Json]:
        return post_json(self._client, "kvorum serve", path, body)


@contextmanager
def started(model: str, folder: Path) -> Iterator[OurServer]:
    """A server process with its store in ``folder``, while it is needed. Raises BenchError where it does not start."""
    words = [sys.executable, "-m", "kvorum.cli", "serve", "--model", model, "--port", "0", "--store", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().split()  # "... at URL", once it is up
        if not line:
            raise BenchError(f"kvorum serve ended with exit code {process.wait()}")
        with closing(OurServer(line[-1].rstrip("/"), model)) as server:
            yield server
    finally:
        process.kill()
        process.communicate()
