"""What paused runs keep: who could not come in beside it is told so with the numbers, and does not wait for a person.

Covers pages and rows, requests that come later and such as wait already, runs, which wait aside, and that all is well
once the run goes on. On the engine without a model.
"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import toy_engine
from kvorum.serve.engine_thread.admission import Admission, Kept
from kvorum.serve.errors import ApiError
from serving import Served, served

LARGE = {"model": "toy", "prompt": "abc", "max_tokens": 5000, "logit_bias": {str(256 + len(toy_engine.MERGES)): -100}}


def sent(
    server: Served, body: dict[str, Any], replies: list[httpx.Response], path: str = "/v1/completions"
) -> threading.Thread:
    """A request under way."""
    thread = threading.Thread(target=lambda: replies.append(server.post(path, body)))
    thread.start()
    return thread


def refusal(reply: httpx.Response, *numbers: int) -> None:
    """It is one, and has these numbers in it."""
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "server_busy")
    message = reply.json()["error"]["message"]
    assert "resume or stop" in message
    assert all(str(number) in message for number in numbers)
    assert int(reply.headers["retry-after"]) >= 1


def test_pages_of_a_paused_run(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy", kv_tokens=8192), tmp_path) as server:
        run = server.run(program="solo", budget={"ticks": 3000}, paused=True)["id"]
        server.until(run, "paused")
        pages = server.http.get("/health").json()["pages"]
        refusal(server.post("/v1/completions", LARGE), pages["reserved"], pages["total"])
        started = server.post("/v1/runs", {"problem": "x", "program": "solo", "budget": {"ticks": 3000}})
        refusal(started, pages["reserved"])
        assert server.post("/v1/completions", {**LARGE, "max_tokens": 9}).status_code == 200
        replies: list[httpx.Response] = []
        assert server.post(f"/v1/runs/{run}/resume").status_code == 200
        work = sent(server, LARGE, replies)  # which waits for the run
        while "kvorum_requests_waiting 1.0" not in server.http.get("/metrics").text:
            assert not replies
        assert server.post(f"/v1/runs/{run}/pause").status_code == 200
        work.join(20)
        refusal(replies.pop(), pages["reserved"])
        assert server.post(f"/v1/runs/{run}/stop").status_code == 200
        assert server.free()


def test_rows_of_a_paused_run(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path, rows=4) as server:
        run = server.run(program="vote", workers=["Ann", "Bob", "Cid"], budget={"ticks": 40}, paused=True)["id"]
        server.until(run, "paused")
        refusal(server.post("/v1/completions", {**LARGE, "max_tokens": 2, "n": 2}), 3, 4, 2)
        assert server.post("/v1/completions", {**LARGE, "max_tokens": 2}).status_code == 200
        server.post(f"/v1/runs/{run}/resume")
        server.until(run, "finished")
        assert server.post("/v1/completions", {**LARGE, "max_tokens": 2, "n": 2}).status_code == 200


def test_a_run_that_cannot_come_in_beside_a_paused_one_waits_aside() -> None:
    async def play() -> None:
        kept = Kept()
        turnstile = Admission(10, rows=9, waiting=9, taken=lambda: 0, free_up=lambda pages: False, kept=lambda: kept)
        paused = await turnstile.enter("a", 1, lambda: 6, run=True)
        run = asyncio.ensure_future(turnstile.enter("a", 1, lambda: 8, run=True))
        large = asyncio.ensure_future(turnstile.enter("b", 1, lambda: 5))
        small = asyncio.ensure_future(turnstile.enter("b", 1, lambda: 2))
        await asyncio.sleep(0)
        assert not small.done()
        kept = Kept(paused=6)
        turnstile.settle()
        with pytest.raises(ApiError, match="Paused runs hold 6 of the 10 pages"):
            await large
        turnstile.leave(await small)
        assert not run.done()
        kept = Kept()
        turnstile.leave(paused)
        turnstile.leave(await run)
        assert (turnstile.reserved, turnstile.waiting, turnstile.running) == (0, 0, 0)

    asyncio.run(play())


def test_a_response_that_waits_its_turn_is_cancelled_and_deleted_at_once(tmp_path: Path) -> None:
    """Though it is no paused run, what it waits for may take long; a deleted one is not stored at its end."""
    with served(toy_engine.fake(name="toy", kv_tokens=8192), tmp_path) as server:
        run = server.run(program="solo", budget={"ticks": 4000})["id"]
        asked = {"model": "toy", "input": "abc", "max_output_tokens": 6000}
        for end in ("cancel", "delete"):
            ended: list[httpx.Response] = []
            ask = sent(server, asked, ended, "/v1/responses")
            while not server.service.responding or not server.service.admission.waiting:
                time.sleep(0.01)
            (number,) = server.service.responding
            path = f"/v1/responses/{number}"
            told = server.post(f"{path}/cancel") if end == "cancel" else server.http.delete(path)
            ask.join(20)
            (reply,) = ended
            assert (told.status_code, reply.status_code) == (200, 200)
            assert reply.json()["status"] == "cancelled"
            assert server.http.get(path).status_code == (200 if end == "cancel" else 404)
        assert server.show(run)["status"] == "running"
        server.post(f"/v1/runs/{run}/stop")
        assert server.free()
