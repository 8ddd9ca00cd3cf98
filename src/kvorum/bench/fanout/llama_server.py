"""llama-server (llama.cpp) in a comparison of whole jobs: started from a path, or reached under a URL.

Its slots share no beginning with one another. With several slots the beginning is read in one of them and handed to the
others by a file, before the clock starts; that is the best that it can do, and more than a client usually does.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import httpx

from kvorum.bench.fanout.http_json import REPLY_SECONDS, post_json
from kvorum.bench.fanout.peer import Prompts, Replies, Wanted
from kvorum.errors import BadRequest, BenchError
from kvorum.jsontypes import Json
from kvorum.wording import first_line

START_SECONDS = 120.0
REACHED_SECONDS = 10.0
"""For the first answer of a server that is said to run."""


def check_server(where: str) -> None:
    """Refuse what no server can be started from (BadRequest), or reached under (BenchError)."""
    if "://" not in where:
        if shutil.which(where) is None:
            raise BadRequest(f"There is no program {where!r} that could be started; give --server the path of one.")
        return
    try:
        httpx.get(f"{where.rstrip('/')}/health", timeout=REACHED_SECONDS)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise BenchError(
            f"Nobody answers under {where} ({first_line(error)}); start the llama-server first."
        ) from error


class LlamaServer:
    """A `Peer`: ``slots`` prompts at the same time; one slot: one after another, the beginning in its prefix cache."""

    def __init__(self, where: str, gguf: Path, *, slots: int, room: int, threads: int) -> None:
        """``where``: the program's path, which is started with ``room`` tokens for each slot; or a URL, whose server
        has the slots that it was given.

        Raises:
            BenchError: it does not start, or cannot be reached.
        """
        self._slots, self._process, self._files = slots, None, ""
        self.name = f"llama-server, {slots} slots" if slots > 1 else "llama-server, one by one"
        self._numbers = count()
        url = where
        if "://" not in where:
            self._files, port = tempfile.mkdtemp(prefix="kvorum-slots-"), _free_port()
            url = f"http://127.0.0.1:{port}"
            self._process = self._start(where, gguf, port, room, threads)
        self._client = httpx.Client(base_url=url, timeout=REPLY_SECONDS)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _start(self, program: str, gguf: Path, port: int, room: int, threads: int) -> subprocess.Popen[bytes]:
        options: dict[str, object] = {
            "-m": gguf,
            "-t": threads,
            "-tb": threads,
            "-np": self._slots,
            "-c": self._slots * room,
            "--port": port,
            "--slot-save-path": self._files,
        }
        words = [str(word) for pair in options.items() for word in pair]
        try:
            return subprocess.Popen(
                [program, *words, "--no-kv-unified"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise BenchError(f"{program} cannot be started: {error.strerror}") from error

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with suppress(httpx.TransportError):
                if self._client.get("/health").status_code == 200:
                    return
            if self._process is not None and self._process.poll() is not None:
                raise BenchError(f"llama-server ended with exit code {self._process.returncode}")
            if self._process is None:
                raise BenchError(f"no llama-server answers under {self._client.base_url}")
            time.sleep(0.1)
        raise BenchError(f"llama-server was not ready after {START_SECONDS:.0f} s")

    def keep(self, beginning: Sequence[int]) -> float:
        """See `Peer`."""
        started = time.perf_counter()
        self._post("/completion", {"prompt": list(beginning), "n_predict": 0, "id_slot": 0, "cache_prompt": True})
        spent = time.perf_counter() - started
        if self._slots > 1:
            file = f"slot-{next(self._numbers)}"
            self._post("/slots/0?action=save", {"filename": file})
            for slot in range(1, self._slots):
                self._post(f"/slots/{slot}?action=restore", {"filename": file})
        return spent

    def write(self, prompts: Prompts, wanted: Wanted) -> Replies:
        """See `Peer`."""
        asked: dict[str, Json] = {
            "n_predict": wanted.tokens,
            "ignore_eos": wanted.full,
            "stop": list(wanted.stops),
            "temperature": 0,
            "top_k": 1,
            "cache_prompt": True,
        }
        if wanted.schema is not None:
            asked["json_schema"] = dict(wanted.schema)

        def one(at: int) -> str:
            prompt: list[Json] = [*prompts.beginning, *prompts.endings[at]]
            reply = self._post("/completion", {**asked, "prompt": prompt, "id_slot": at % self._slots})
            return str(reply.get("content", ""))

        started = time.perf_counter()
        with ThreadPoolExecutor(self._slots) as pool:
            texts = list(pool.map(one, range(len(prompts.endings))))
        return Replies(time.perf_counter() - started, texts)

    def answer(self, prompt: Sequence[int], tokens: int) -> tuple[float, int, str]:
        """One prompt in the first slot, whose prefix cache is on: seconds to the first token, tokens that it read for
        that, and the answer of at most ``tokens`` tokens."""
        asked: dict[str, Json] = {"id_slot": 0, "cache_prompt": True, "temperature": 0, "top_k": 1}
        started = time.perf_counter()
        reply = self._post("/completion", {**asked, "prompt": list(prompt), "n_predict": 1})
        first = time.perf_counter() - started
        timings = reply.get("timings")
        read = timings.get("prompt_n") if isinstance(timings, Mapping) else None
        if not isinstance(read, int):
            raise BenchError("llama-server does not say how many tokens it read; take a newer one")
        rest = self._post("/completion", {**asked, "prompt": list(prompt), "n_predict": tokens})
        return first, read, str(rest.get("content", ""))

    def close(self) -> None:
        """See `Peer`."""
        self._client.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._files:
            shutil.rmtree(self._files, ignore_errors=True)

    def _post(self, path: str, body: Mapping[str, Json]) -> dict[str, Json]:
        return post_json(self._client, "llama-server", path, body)


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
