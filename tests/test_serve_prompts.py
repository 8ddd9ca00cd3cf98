"""Prompts and replies in the cache: shared by requests and by runs of every program, kept for later turns, let go.

Compared with engines that share nothing; to the last bit where the server says so.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from kvorum import Budget, Engine, Row, View
from kvorum.engine.row import Cost
from kvorum.programs import find
from kvorum.runs.prefix_cache import PrefixCache
from serving import Served, served, text_of, together

pytestmark = pytest.mark.forward


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(toy_engine.engine(name="toy", kv_tokens=16384), tmp_path_factory.mktemp("store")) as up:
        yield up


def test_prompts_that_begin_alike(server: Served) -> None:
    """The shared beginning is encoded once, also by those who come at the same time, and the logits are the same."""
    rules = "You are a careful helper who answers in few words and never guesses. " * 3
    shared = len(toy_engine.tokenizer()(rules).input_ids)
    bodies = [
        {"model": "toy", "prompt": f"{rules}Now {n}!", "max_tokens": 6, "temperature": 0, "logprobs": 1}
        for n in range(8)
    ]
    before = server.service.engine.ledger.prefill
    replies = together(server, bodies)
    spent = server.service.engine.ledger.prefill - before
    cached = [reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in replies]
    assert sorted(cached)[0] == 0
    assert sum(count >= shared - 2 for count in cached) == 7
    assert spent < 2 * shared
    for body, reply in zip(bodies, replies, strict=True):
        engine = toy_engine.engine()
        block = engine.block()
        logits = engine.forward([Row(View(block), ids=toy_engine.tokenizer()(body["prompt"]).input_ids)]).logits[0]
        for chance in reply.json()["choices"][0]["logprobs"]["token_logprobs"]:
            best = torch.log_softmax(logits.float(), 0).max()
            assert chance == pytest.approx(float(best), abs=1e-4)
            logits = engine.forward([Row(View(block), ids=[int(logits.argmax())])]).logits[0]


def test_a_conversation_goes_on_where_its_reply_ended(server: Served) -> None:
    """A later turn finds the reply in the cache as well, of one choice or of several, and gets the logits it would."""

    def say(ids: list[int], **more: Any) -> dict[str, Any]:
        body = {"model": "toy", "prompt": ids, "max_tokens": 20, "logprobs": 1, "temperature": 0.9, "seed": 3}
        reply = server.post("/v1/completions", body | more)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    for n in (1, 2):
        first = list(range(40 * n, 40 * n + 40))
        say(first, n=n)
        for kept in list(server.service.prefixes._entries)[-n:]:
            assert kept.ids[:40].tolist() == first
            assert len(kept.ids) > len(first)
            ids = [*kept.ids.tolist(), 11, 12, 13]
            again = say(ids, temperature=0, max_tokens=3)
            assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == len(kept.ids)
            engine = toy_engine.engine()
            logits = engine.forward([Row(View(engine.block()), ids=ids)]).logits[0]
            best = torch.log_softmax(logits.float(), 0).max()
            assert again["choices"][0]["logprobs"]["token_logprobs"][0] == pytest.approx(float(best), abs=1e-4)
    assert server.free()


def test_what_is_cached_decides_no_draw(server: Served) -> None:
    """The same seed draws the same tokens, whether the prompt stands behind others' beginning or was encoded anew."""
    rules = [7 + n % 50 for n in range(40)]
    body = {"model": "toy", "prompt": [*rules, 90, 91], "max_tokens": 24, "temperature": 1, "seed": 8}
    alone = text_of(server.post("/v1/completions", body))
    server.post("/v1/completions", body | {"prompt": rules})
    for n in (1, 3):
        assert text_of(server.post("/v1/completions", body | {"n": n})) == alone
    server.service.thread.loop.call_soon_threadsafe(server.service.prefixes.free_up, server.service.engine.pool.pages)
    server.post("/v1/completions", body | {"prompt": rules})
    assert text_of(server.post("/v1/completions", body)) == alone


@pytest.mark.parametrize(("start", "end"), [(0, 30), (0, 100), (40, 20), (40, 100)])
def test_a_prompt_that_comes_again_gets_the_same_reply(tmp_path: Path, start: int, end: int) -> None:
    """To the last bit, with packed weights: its short end stands in the reply's block again, a long one before it."""
    choose = random.Random(start + end)
    shared, own = ([choose.randrange(1000, 40000) for _ in range(n)] for n in (start, end))
    body = {"model": "smollm2-135m", "max_tokens": 12, "temperature": 0.8, "seed": 5, "logprobs": 1}
    with served(Engine.load("smollm2-135m", kv_tokens=4096), tmp_path) as server:
        if shared:
            server.post("/v1/completions", body | {"prompt": [*shared, 7, 8]})
        told = [server.post("/v1/completions", body | {"prompt": [*shared, *own]}).json() for _ in range(3)]
        assert told[1]["usage"]["prompt_tokens_details"]["cached_tokens"] == start + end
        assert told[0]["choices"] == told[1]["choices"] == told[2]["choices"]
        assert server.free()


def test_programs_that_begin_alike(server: Served) -> None:
    """Teams that come at the same time encode their rules once; each counts and writes what it would alone."""
    problems = [f"What is {n} times three?" for n in range(3)]
    own = [
        toy_engine.engine(prefill_chunk=256).run(
            find("hogwild"), problem, workers=2, budget=Budget(ticks=16), seed=n, rules="published"
        )
        for n, problem in enumerate(problems)
    ]
    before = server.service.engine.ledger.prefill
    runs = [
        server.run(problem=problem, model="toy:hogwild-2", budget={"ticks": 16}, seed=n, params={"rules": "published"})[
            "id"
        ]
        for n, problem in enumerate(problems)
    ]
    shown = [server.until(run, "finished") for run in runs]
    spent = server.service.engine.ledger.prefill - before
    assert spent < 0.7 * sum(result.ledger.prefill for result in own)
    for run, told, result in zip(runs, shown, own, strict=True):
        for name in ("prefill", "decoded", "ticks"):
            assert told["ledger"][name] == getattr(result.ledger, name)
        rows = [row for event in server.events(run) if event["event"] == "tick" for row in event["rows"]]
        for name, worker in (("Alice", 0), ("Bob", 1)):
            assert [row["token"] for row in rows if row["worker"] == name] == result.workers[worker].ids
    assert server.free()


@pytest.mark.parametrize(
    ("program", "params", "problem", "share"),
    [
        ("solo", {}, "", 0.5),
        ("vote", {}, "", 0.7),
        ("thread", {}, "", 0.7),
        ("tree", {}, "", 0.7),
        ("roleplay", {"messages": 2, "message_tokens": 4}, "", 0.7),
        ("network", {"rounds": 1, "message_tokens": 4, "answer_tokens": 4}, "coloring", 0.9),
        ("consensus", {"rounds": 1}, "", 0.9),
    ],
)
def test_every_program_takes_what_others_have_encoded(
    server: Served, program: str, params: dict[str, Any], problem: str, share: float
) -> None:
    """A second run of the same task, and two at the same time: the same trace as alone, for less prefill.

    The toy's weights are plain float32, whose products round by how many rows there are: log-probabilities may show it.
    """
    given: dict[str, Any] = {
        "program": program,
        "problem": problem or f"Say how {program} counts to nine.",
        "params": params,
    }
    given |= {"budget": {"ticks": 12}, "seed": 5}

    def told(run: str) -> tuple[list[dict[str, Any]], list[float]]:
        clock = ("seconds", "ledger", "time")
        events = [{k: v for k, v in event.items() if k not in clock} for event in server.events(run)]
        rows = [row for event in events if event["event"] == "tick" for row in event["rows"]]
        return events, [row.pop("logprob") for row in rows if "logprob" in row]

    def spent(count: int) -> tuple[int, list[str]]:
        before = server.service.engine.ledger.prefill
        runs = [server.run(model="toy", **given)["id"] for _ in range(count)]
        for run in runs:
            server.until(run, "finished")
        return server.service.engine.ledger.prefill - before, runs

    alone, (first,) = spent(1)
    less, (second,) = spent(1)
    assert less < share * alone
    both, pair = spent(2)
    assert both < 2 * share * alone
    events, chances = told(first)
    for run in (second, *pair):
        again, rounded = told(run)
        assert again == events
        assert rounded == pytest.approx(chances, abs=1e-3)
    assert server.free()


def test_a_beginning_that_nobody_encodes_in_the_end() -> None:
    """Who waits for a prompt whose run is stopped encodes it itself; one without room is not kept; no page is lost."""
    engine = toy_engine.engine(kv_tokens=1024)
    ids = [5 + n % 40 for n in range(60)]

    async def fill(cache: PrefixCache, more: int, wait: asyncio.Event) -> int:
        row, costs = Row(View(engine.block()), ids=[*ids, more]), [Cost(0)]
        async with cache.known([row], costs) as (rest, _):
            await wait.wait()
            await engine.scheduler.submit(rest, costs)
        return row.count - rest[0].count

    async def work(room: bool) -> tuple[list[int], int]:
        cache = PrefixCache(engine, engine.pool.pages, room=lambda pages: room)
        never, now = asyncio.Event(), asyncio.Event()
        now.set()
        first = asyncio.create_task(fill(cache, 1, never))
        await asyncio.sleep(0)
        others = [asyncio.create_task(fill(cache, n, now)) for n in (2, 3)]
        await asyncio.sleep(0.01)
        first.cancel()
        known = await asyncio.gather(*others)
        known.append(await fill(cache, 4, now))
        pages = cache.pages
        cache.free_up(pages)
        assert cache.pages == 0
        return known, pages

    known, pages = asyncio.run(work(room=True))
    assert known[0] == 0
    assert known[2] == len(ids)
    assert pages > 0
    known, pages = asyncio.run(work(room=False))
    assert known == [0, 0, 0]
    assert pages == 0
    gc.collect()
    assert engine.pool.free == engine.pool.pages


def test_old_prompts_make_room(tmp_path: Path) -> None:
    with served(toy_engine.engine(name="toy", kv_tokens=1024), tmp_path) as server:
        for n in range(12):
            body = {"model": "toy", "prompt": f"{n} " + "word " * 60, "max_tokens": 200}
            assert server.post("/v1/completions", body).status_code == 200
        pages = server.http.get("/health").json()["pages"]
        assert 0 < pages["prefixes"] <= pages["total"] // 2
        assert server.free()
