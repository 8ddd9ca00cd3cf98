"""Many at once: shared ticks, turns, back-pressure, clients that go away, blocks. Prompts: ``test_serve_prompts``.

Figures of a server under load are in ``benchmarks/soak``.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

import toy_engine
from kvorum import Engine, Row, View
from kvorum.serve.engine_thread.admission import Admission
from kvorum.serve.errors import ApiError
from serving import Process, Served, served, text_of, together


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(toy_engine.fake(name="toy", kv_tokens=16384), tmp_path_factory.mktemp("store")) as up:
        yield up


def test_shared_ticks_change_no_text(server: Served) -> None:
    bodies = [
        {"model": "toy", "prompt": f"Question {n}:", "max_tokens": 24, "temperature": 0.8, "seed": n} for n in range(24)
    ]
    alone = [text_of(server.post("/v1/completions", body)) for body in bodies]
    before = server.service.engine.ledger.ticks
    assert [text_of(reply) for reply in together(server, bodies)] == alone
    assert server.service.engine.ledger.ticks - before < 24 * 24 / 3


def test_clients_that_go_away(server: Served) -> None:
    """Pages of abandoned requests, streamed or not, and of teams, are free at once; the others go on."""

    async def some() -> list[str]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:

            async def ask(n: int) -> str:
                body = {"model": "toy", "prompt": f"Hi {n}", "max_tokens": 150, "seed": 1, "stream": n % 4 < 2}
                if n % 8 == 1:
                    chat = {"messages": [{"role": "user", "content": "x"}], "kvorum": {"budget": {"ticks": 100}}}
                    body = {"model": "toy:hogwild-2", "stream": True, **chat}
                path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
                async with client.stream("POST", path, json=body) as reply:
                    text = ""
                    async for line in reply.aiter_lines():
                        text += line
                        if n % 2 and len(text) > 100:
                            return "left"
                    return text

            work = [asyncio.ensure_future(ask(n)) for n in range(24)]
            await asyncio.sleep(1)
            for task in work[3::4]:  # not streamed: cut the connection
                task.cancel()
            return [str(r) for r in await asyncio.gather(*work, return_exceptions=True)]

    replies = asyncio.run(some())
    assert replies.count("left") >= 6
    assert all("[DONE]" in text for text in replies[0::4])
    assert server.free(5)
    running = server.http.get("/health").json()["runs"]
    assert sum(running.values()) == 0


def test_too_many_get_429(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path, rows=2, waiting=3) as server:
        bodies = [{"model": "toy", "prompt": f"{n}", "max_tokens": 400} for n in range(12)]
        replies = together(server, bodies)
        refused = [reply for reply in replies if reply.status_code == 429]
        assert [reply.status_code for reply in replies].count(200) >= 5
        assert len(refused) == 12 - [reply.status_code for reply in replies].count(200) > 0
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        assert refused[0].json()["error"]["type"] == "rate_limit_error"
        assert server.free()


def test_clients_take_turns() -> None:
    """One that sends fifty waits behind its own; another's single request is next but one."""

    async def play() -> list[str]:
        turnstile = Admission(10, rows=1, waiting=100, taken=lambda: 0, free_up=lambda pages: False)
        order: list[str] = []

        async def one(client: str) -> None:
            ticket = await turnstile.enter(client, 1, lambda: 5)
            order.append(client)
            await asyncio.sleep(0)
            turnstile.leave(ticket)

        first = await turnstile.enter("crowd", 1, lambda: 5)
        work = [asyncio.ensure_future(one("crowd")) for _ in range(50)]
        await asyncio.sleep(0)
        work.append(asyncio.ensure_future(one("single")))
        await asyncio.sleep(0)
        turnstile.leave(first)
        await asyncio.gather(*work)
        assert (turnstile.reserved, turnstile.rows, turnstile.running, turnstile.waiting) == (0, 0, 0, 0)
        return order

    assert asyncio.run(play()).index("single") <= 2


def test_nobody_is_passed_over() -> None:
    """A large one at the head of the queue is let in before small ones behind it, of any client."""

    async def play() -> None:
        turnstile = Admission(10, rows=9, waiting=9, taken=lambda: 0, free_up=lambda pages: False)
        first = await turnstile.enter("a", 1, lambda: 6)
        large = asyncio.ensure_future(turnstile.enter("a", 1, lambda: 8))
        await asyncio.sleep(0)
        small = asyncio.ensure_future(turnstile.enter("b", 1, lambda: 1))
        await asyncio.sleep(0)
        assert not large.done()
        assert not small.done()
        gone = asyncio.ensure_future(turnstile.enter("c", 1, lambda: 1))
        await asyncio.sleep(0)
        gone.cancel()
        turnstile.leave(first)
        turnstile.leave(await large)
        turnstile.leave(await small)
        with pytest.raises(ApiError, match="kv-tokens"):
            await turnstile.enter("a", 1, lambda: 11)
        assert (turnstile.reserved, turnstile.waiting) == (0, 0)

    asyncio.run(play())


def test_http_answers_while_a_tick_computes(server: Served) -> None:
    """Requests that need no tick are not held up by long prompts."""
    work = threading.Thread(
        target=lambda: together(
            server, [{"model": "toy", "prompt": [n] * 200 + [1] * 20, "max_tokens": 30} for n in range(20, 60)]
        )
    )
    work.start()
    count = 0
    while work.is_alive():
        assert server.http.get("/health").status_code == 200
        count += 1
    work.join()
    assert count > 3


# -- blocks ---------------------------------------------------------------------------------------------------------


def test_blocks_are_shared_memory(server: Served) -> None:
    """A reply behind a block equals one behind its text; what is written into a block is seen by the next."""
    text = "The code word is heron. "
    block = server.post("/v1/blocks", {"name": "notes", "text": text}).json()
    body = {"model": "toy", "max_tokens": 10, "temperature": 0}
    behind = {**body, "prompt": "What is it?", "kvorum": {"view": [{"block": block["id"]}]}}
    plain = text_of(server.post("/v1/completions", {**body, "prompt": f"{text}What is it?"}))
    assert text_of(server.post("/v1/completions", behind)) == plain
    into = {**body, "prompt": "What is it?", "kvorum": {"into": block["id"]}}
    assert text_of(server.post("/v1/completions", into)) == plain
    shown = server.http.get(f"/v1/blocks/{block['id']}").json()
    assert shown["text"].startswith(f"{text}What is it?{plain[:4]}")
    more = server.post(f"/v1/blocks/{block['id']}/append", {"text": " More."}).json()
    assert more["tokens"] == shown["tokens"] + len(toy_engine.tokenizer()(" More.").input_ids)
    cut = {**behind, "kvorum": {"view": [{"block": block["id"], "from": 4, "to": 9}, {"gap": 3}]}}
    assert server.post("/v1/completions", cut).status_code == 200
    placed = {**behind, "kvorum": {"view": [{"block": block["id"], "from": 4, "to": 9, "at": 40}]}}
    gap = {**behind, "kvorum": {"view": [{"gap": 40}, {"block": block["id"], "from": 4, "to": 9}]}}
    assert text_of(server.post("/v1/completions", placed)) == text_of(server.post("/v1/completions", gap))
    nowhere = {**behind, "kvorum": {"view": [{"gap": 3, "at": 1}]}}
    assert server.post("/v1/completions", nowhere).status_code == 400
    twice = {**behind, "kvorum": {"view": [{"block": block["id"]}, {"block": block["id"]}]}}
    assert server.post("/v1/completions", twice).status_code == 400
    assert server.http.delete(f"/v1/blocks/{block['id']}").json()["deleted"]
    assert server.post("/v1/completions", behind).status_code == 404
    assert server.free()


def test_a_saved_block_waits_for_its_pages(tmp_path: Path) -> None:
    """Reading it takes nothing from a request that has begun: all of a reply comes, and then the block."""
    with served(toy_engine.fake(name="toy", kv_tokens=400), tmp_path) as server:
        block = server.post("/v1/blocks", {"ids": [5] * 240}).json()["id"]
        assert server.post(f"/v1/blocks/{block}/save").json()["saved"]
    with served(toy_engine.fake(name="toy", kv_tokens=400), tmp_path) as server:
        body = {"model": "toy", "prompt": [7], "max_tokens": 240, "stream": True}
        with server.http.stream("POST", "/v1/completions", json=body) as reply:
            lines = reply.iter_lines()
            first = next(lines)
            shown: list[httpx.Response] = []
            reader = threading.Thread(target=lambda: shown.append(server.http.get(f"/v1/blocks/{block}")))
            reader.start()
            told = [line for line in [first, *lines] if line]
        reader.join()
        assert told[-1] == "data: [DONE]"
        assert not [line for line in told if '"error"' in line]
        assert (shown[0].status_code, shown[0].json()["tokens"]) == (200, 240)


def test_a_cache_full_of_blocks_says_so(tmp_path: Path) -> None:
    """Who could come in only when blocks are deleted is sent away, and need not wait for that."""
    with served(toy_engine.fake(name="toy", kv_tokens=4000), tmp_path) as server:
        block = server.post("/v1/blocks", {"ids": [5] * 3960}).json()["id"]
        small = {"model": "toy", "prompt": [7], "max_tokens": 8}
        asked = {
            "/v1/completions": {"model": "toy", "prompt": [7], "max_tokens": 80},
            "/v1/blocks": {"ids": [5] * 80},
            "/v1/runs": {"problem": "x", "budget": {"ticks": 1}, "workers": 1, "program": "solo"},
        }
        for path, body in asked.items():
            reply = server.post(path, body)
            assert (reply.status_code, reply.headers.get("retry-after")) == (429, "30"), reply.text
            assert "delete some" in reply.json()["error"]["message"]
        assert server.post("/v1/completions", small).status_code == 200
        server.http.delete(f"/v1/blocks/{block}")
        assert server.post("/v1/completions", asked["/v1/completions"]).status_code == 200
        assert server.free()


@pytest.mark.forward
def test_saved_blocks_are_there_again(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path) as server:
        block = server.post("/v1/blocks", {"text": "Remember the heron.", "name": "memory"}).json()["id"]
        assert server.post(f"/v1/blocks/{block}/save").json()["saved"]
        lost = server.post("/v1/blocks", {"text": "Not saved."}).json()["id"]
    with served(toy_engine.fake(name="toy"), tmp_path) as server:
        assert [held["id"] for held in server.http.get("/v1/blocks").json()["data"]] == [block]
        shown = server.http.get(f"/v1/blocks/{block}").json()
        assert (shown["text"], shown["name"], shown["sealed"]) == ("Remember the heron.", "memory", True)
        assert server.http.get(f"/v1/blocks/{lost}").status_code == 404
    with served(toy_engine.engine(name="toy", seed=1), tmp_path) as server:
        refused = server.http.get(f"/v1/blocks/{block}")
        assert (refused.status_code, "another model" in refused.json()["error"]["message"]) == (409, True)


# -- the real kernels ------------------------------------------------------------------------------------------------


def test_rows_do_not_feel_each_other() -> None:
    """With packed weights, logits are the same bit for bit in any company and any pieces."""
    engine = Engine.load("smollm2-135m", kv_tokens=8192)
    if engine.weights != "packed":
        pytest.skip("needs kvorum-native")
    torch.set_num_threads(2)
    ids = [1000 + 37 * n % 9000 for n in range(500)]

    def say(pieces: list[int], others: int) -> torch.Tensor:
        block, company = engine.block(), [View(engine.block()) for _ in range(others)]
        logits, start = [], 0
        for count in [*pieces, 1, 1, 1]:
            rows = [Row(view, ids=ids[n : n + 40 if not start else n + 1]) for n, view in enumerate(company)]
            rows.insert(others // 2, Row(View(block), ids=ids[start : start + count]))
            logits.append(engine.forward(rows).logits[others // 2])
            start += count
        return torch.stack(logits[-4:])

    alone = say([400], 0)
    assert torch.equal(say([256, 144], 0), alone)
    assert torch.equal(say([128, 128, 144], 5), alone)
    assert torch.equal(say([400], 40), alone)


def test_smollm2_resumes_to_the_same_tokens(tmp_path: Path) -> None:
    """Killed in company, replayed in other company: the tokens are those of an undisturbed run."""
    server = Process("smollm2-135m", tmp_path, "--kv-tokens", "16384")
    body = {"program": "hogwild", "workers": 3, "budget": {"ticks": 24}, "seed": 2, "params": {"final_tokens": 4}}
    alone = server.up.run(**body)["id"]
    server.up.until(alone, "finished")
    expected = server.up.events(alone)
    run = server.up.run(**body)["id"]
    for n in range(2):
        server.up.run(**{**body, "seed": 10 + n, "program": "vote"})
    while server.up.show(run)["ticks"] < 12:
        time.sleep(0.02)
    server.end()
    server = Process("smollm2-135m", tmp_path, "--kv-tokens", "16384")
    server.up.until(run, "finished")
    found = server.up.events(run)
    server.end()

    def tokens(events: list[dict[str, Any]]) -> str:
        return json.dumps([[row["token"] for row in event["rows"]] for event in events if event["event"] == "tick"])

    assert tokens(found) == tokens(expected)
