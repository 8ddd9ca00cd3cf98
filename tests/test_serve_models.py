"""Several models in one server: loaded when first named, let go when another needs the room, never while in use.

Tiny random models of two seeds behind a real server, each reply compared with its own model's. Covers loading once for
many, a load that fails, random interleavings against a limit of one, what keeps a model (replies, runs, blocks), memory
that is freed, things that belong to one model, keys, and runs of an earlier server. Not covered: GPUs.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import toy_engine
from kvorum import Engine, View
from kvorum.cli.arguments import load_options
from kvorum.cli.parser import parse
from kvorum.cli.served_models import offered_models
from kvorum.serve.keys.api_key import ApiKey
from kvorum.serve.model_source import ModelSource
from serving import Served, served_models, text_of


class Loads:
    """Counts loads; each engine is known by a weak reference alone."""

    def __init__(self, *names: str, seconds: float = 0.0, needs: int = 0) -> None:
        self.names, self.seconds, self.needs = names, seconds, needs
        self.count = dict.fromkeys(names, 0)
        self.made: list[weakref.ref[Engine]] = []
        self.weights: list[weakref.ref[Any]] = []
        self.broken: set[str] = set()

    def sources(self) -> Sequence[ModelSource]:
        return [ModelSource(name, lambda name=name: self.load(name), self.needs) for name in self.names]  # type: ignore[misc]

    def load(self, name: str) -> Engine:
        self.count[name] += 1
        time.sleep(self.seconds)
        if name in self.broken:
            raise OSError("the disk is gone")
        engine = toy_engine.engine(seed=self.names.index(name), name=name)
        self.made.append(weakref.ref(engine))
        self.weights.append(weakref.ref(next(engine.model.parameters())))
        return engine


@contextmanager
def several(
    store: Path, *names: str, most: int | None = None, keys: Sequence[ApiKey] = (), **how: Any
) -> Iterator[tuple[Served, Loads]]:
    loads = Loads(*names, **how)
    with served_models(loads.sources(), store, place={"models_loaded": most, "api_keys": tuple(keys)}) as up:
        yield up, loads


def body(model: str, prompt: str = "The pump") -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0}


def own(seed: int, prompt: str = "The pump") -> str:
    """What the model of that seed says by itself."""
    engine = toy_engine.engine(seed=seed)
    block, ids = engine.block(), list(engine.tokenizer(prompt).input_ids)

    async def told() -> str:
        return "".join([token.text async for token in engine.decode(View(block), ids=ids, max_tokens=8)])

    return asyncio.run(told())


def statuses(up: Served) -> dict[str, str]:
    return dict(up.http.get("/health").json()["models"])


def test_each_is_loaded_when_it_is_first_named(tmp_path: Path) -> None:
    with several(tmp_path, "a", "b", "c") as (up, loads):
        assert statuses(up) == {"a": "loaded", "b": "unloaded", "c": "unloaded"}
        listed = {each["id"]: each for each in up.http.get("/v1/models").json()["data"]}
        assert listed["b"]["status"] == {"value": "unloaded", "error": None}
        assert listed["b:vote-4"]["kvorum"]["workers"] == 4
        assert loads.count == {"a": 1, "b": 0, "c": 0}
        assert [text_of(up.post("/v1/completions", body(name))) for name in "ab"] == [own(0), own(1)]
        assert own(0) != own(1)
        assert statuses(up) == {"a": "loaded", "b": "loaded", "c": "unloaded"}
        assert up.http.get("/v1/models/b").json()["max_model_len"] > 0
        refused = up.post("/v1/completions", body("d"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert "a, b, c" in refused.json()["error"]["message"]
        assert up.http.get("/v1/models/d").status_code == 404
        run = up.run(model="b:vote-2", problem="Count.", budget={"ticks": 4})
        assert up.until(run["id"], "finished", "failed")["model"] == "b"


def test_many_first_requests_load_it_once(tmp_path: Path) -> None:
    with several(tmp_path, "a", "b", seconds=0.2) as (up, loads):

        async def ask() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=up.url, timeout=60) as client:
                return await asyncio.gather(*(client.post("/v1/completions", json=body("b")) for _ in range(8)))

        assert {text_of(reply) for reply in asyncio.run(ask())} == {own(1)}
        assert loads.count["b"] == 1


def test_a_load_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    with several(tmp_path, "a", "b") as (up, loads):
        loads.broken.add("b")
        refused = up.post("/v1/completions", body("b"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_load_failed")
        assert "the disk is gone" in refused.json()["error"]["message"]
        assert "the disk is gone" in up.http.get("/v1/models/b").json()["status"]["error"]
        assert text_of(up.post("/v1/completions", body("a"))) == own(0)
        loads.broken.clear()
        assert text_of(up.post("/v1/completions", body("b"))) == own(1)
        assert up.http.get("/v1/models/b").json()["status"] == {"value": "loaded", "error": None}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_any_order_with_room_for_one(tmp_path: Path, seed: int) -> None:
    """Whole replies, streams and streams that are left, of three models; each is its own model's, and in the end what
    was let go is gone."""
    names, made = "abc", random.Random(seed)
    expected = {name: own(at) for at, name in enumerate(names)}
    with several(tmp_path, *names, most=1) as (up, loads):

        async def one(client: httpx.AsyncClient) -> None:
            name, how = made.choice(names), made.choice(["whole", "stream", "left"])
            await asyncio.sleep(made.random() * 0.2)
            if how == "whole":
                assert text_of(await client.post("/v1/completions", json=body(name))) == expected[name]
                return
            async with client.stream("POST", "/v1/completions", json={**body(name), "stream": True}) as reply:
                assert reply.status_code == 200, await reply.aread()
                async for _ in reply.aiter_lines():
                    if how == "left":
                        return

        async def ask() -> None:
            async with httpx.AsyncClient(base_url=up.url, timeout=60) as client:
                await asyncio.gather(*(one(client) for _ in range(8)))

        asyncio.run(ask())
        for name in names:
            assert text_of(up.post("/v1/completions", body(name))) == expected[name]
        assert list(statuses(up).values()).count("loaded") == 1
        alive = [engine for engine in loads.made if engine() is not None]
        assert len(alive) == 1
        assert sum(weight() is not None for weight in loads.weights) == 1


def test_what_is_in_use_is_not_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is held, then a block that is in the cache alone; then it goes, and another may come."""
    monkeypatch.setattr("kvorum.serve.loaded_models.PATIENCE", 0.2)
    with several(tmp_path, "a", "b", most=1) as (up, _):
        run = up.run(problem="Count.", paused=True, budget={"ticks": 4})["id"]
        block = up.post("/v1/blocks", {"text": "The code is 4711."}).json()
        assert block["model"] == "a"

        def refused() -> str:
            reply = up.post("/v1/completions", body("b"))
            assert reply.status_code in (200, 429), reply.text
            return str(reply.json()["error"]["message"]) if reply.status_code == 429 else ""

        assert "is in use: a by 1 run." in refused()
        assert up.post(f"/v1/runs/{run}/stop").status_code == 200
        assert "is in use: a by kept blocks that are not saved." in refused()
        assert up.post(f"/v1/blocks/{block['id']}/save").status_code == 200
        assert not refused()
        assert statuses(up) == {"a": "unloaded", "b": "loaded"}
        assert up.http.get(f"/v1/runs/{run}").json()["status"] == "stopped"
        assert up.post(f"/v1/runs/{run}/pause").status_code == 409
        assert len(up.events(run)) > 0
        with up.http.stream("GET", f"/v1/runs/{run}/events") as reply:
            assert "status" in reply.read().decode()
        assert [each["id"] for each in up.http.get("/v1/blocks").json()["data"]] == [block["id"]]
        assert up.http.get(f"/v1/blocks/{block['id']}").json()["text"] == "The code is 4711."
        assert statuses(up) == {"a": "loaded", "b": "unloaded"}
        assert up.http.delete(f"/v1/runs/{run}").status_code == 200


def test_what_belongs_to_one_model_is_refused_by_another(tmp_path: Path) -> None:
    with several(tmp_path, "a", "b") as (up, _):
        block = up.post("/v1/blocks", {"text": "The code is 4711.", "model": "b"}).json()
        assert block["model"] == "b"
        view = {"kvorum": {"view": [{"block": block["id"]}]}}
        refused = up.post("/v1/completions", {**body("a"), **view})
        assert refused.status_code == 409
        assert "is the model b's" in refused.json()["error"]["message"]
        assert up.post("/v1/completions", {**body("b"), **view}).status_code == 200
        first = up.post("/v1/responses", {"model": "b", "input": "Hi", "max_output_tokens": 4}).json()
        going_on = {"input": "And?", "max_output_tokens": 4, "previous_response_id": first["id"]}
        refused = up.post("/v1/responses", {"model": "a", **going_on})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")
        assert up.post("/v1/responses", {"model": "b", **going_on}).status_code == 200


def test_a_block_of_a_model_that_is_not_offered_is_listed_once(tmp_path: Path) -> None:
    with several(tmp_path, "a") as (up, _):
        block = up.post("/v1/blocks", {"text": "The code is 4711.", "model": "a"}).json()["id"]
        assert up.post(f"/v1/blocks/{block}/save").status_code == 200
    with several(tmp_path, "b", "c") as (up, _):
        assert up.post("/v1/completions", body("c")).status_code == 200
        assert [each["id"] for each in up.http.get("/v1/blocks").json()["data"]] == [block]
        refused = up.post("/v1/completions", {**body("c"), "kvorum": {"view": [{"block": block}]}})
        assert refused.status_code == 409
        assert "is the model a's" in refused.json()["error"]["message"]
        assert up.http.delete(f"/v1/blocks/{block}").status_code == 200
        assert up.http.get("/v1/blocks").json()["data"] == []


def test_what_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    with several(tmp_path, "a", "b", needs=2**60) as (up, loads):
        refused = up.post("/v1/completions", body("b"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_load_failed")
        assert "MiB" in refused.json()["error"]["message"]
        assert loads.count["b"] == 0
        assert statuses(up)["a"] == "loaded", "nothing is let go for what never fits"


def test_a_folder_needs_memory_for_what_it_computes_in(tmp_path: Path) -> None:
    """Weights in float16 are computed with in float32, twice as large."""
    small = Path(__file__).parents[1] / "studies" / "calibration-model"
    other = shutil.copytree(small, tmp_path / "other")
    options = load_options(parse(["serve", "--exact"]))
    first, second = offered_models([str(small), str(other)], options, lambda: None)
    size = (small / "model.safetensors").stat().st_size
    assert first.needs == second.needs
    assert 2 * size < first.needs - 2**30 < 2.5 * size


def test_memory_that_runs_out_lets_the_other_go(tmp_path: Path) -> None:
    loads = Loads("a", "b")
    a, b = loads.sources()
    tried: list[int] = []

    def load() -> Engine:
        tried.append(1)
        if len(tried) == 1:
            raise MemoryError("no room")
        return b.load()

    with served_models([a, ModelSource("b", load)], tmp_path) as up:
        assert text_of(up.post("/v1/completions", body("b"))) == own(1)
        assert statuses(up) == {"a": "unloaded", "b": "loaded"}


def test_a_key_is_for_some_of_them(tmp_path: Path) -> None:
    key = ApiKey.of("ann's secret", "ann").model_copy(update={"models": ("b",)})
    with several(tmp_path, "a", "b", keys=[key]) as (up, loads):
        up.http.headers["authorization"] = "Bearer ann's secret"
        assert up.post("/v1/completions", body("a")).status_code == 403
        assert up.http.get("/v1/models/a").status_code == 403
        assert {each["id"].partition(":")[0] for each in up.http.get("/v1/models").json()["data"]} == {"b"}
        assert text_of(up.post("/v1/completions", body("b"))) == own(1)
        assert up.http.get("/v1/runs").status_code == 200
        assert loads.count == {"a": 1, "b": 1}


def test_runs_of_an_earlier_server_go_on_with_their_models(tmp_path: Path) -> None:
    with several(tmp_path, "a", "b") as (up, _):
        runs = [up.run(model=name, problem="Count.", paused=True, budget={"ticks": 6})["id"] for name in "ab"]
        for run in runs:
            up.until(run, "paused")
            up.post(f"/v1/runs/{run}/step", {"ticks": 2})
    with several(tmp_path, "a", "b") as (up, loads):
        assert loads.count == {"a": 1, "b": 1}
        for run in runs:
            assert up.post(f"/v1/runs/{run}/resume").status_code == 200
            assert up.until(run, "finished", "failed")["status"] == "finished"


def test_a_model_that_cannot_be_loaded_holds_its_own_runs_alone(tmp_path: Path) -> None:
    with several(tmp_path, "a", "b") as (up, _):
        runs = [up.run(model=name, problem="Count.", paused=True, budget={"ticks": 6})["id"] for name in "ab"]
        for run in runs:
            up.until(run, "paused")
    loads = Loads("a", "b")
    loads.broken.add("b")
    with served_models(loads.sources(), tmp_path) as up:
        assert up.post(f"/v1/runs/{runs[0]}/resume").status_code == 200
        assert up.until(runs[0], "finished", "failed")["status"] == "finished"
        held = up.http.get(f"/v1/runs/{runs[1]}").json()
        assert (held["status"], held["error"]["type"]) == ("paused", "model_missing")
        assert "the disk is gone" in held["error"]["message"]
        refused = up.post(f"/v1/runs/{runs[1]}/resume")
        assert refused.status_code == 409
        assert "the disk is gone" in refused.json()["error"]["message"]
    with several(tmp_path, "a", "b") as (up, _):
        assert up.post(f"/v1/runs/{runs[1]}/resume").status_code == 200
        assert up.until(runs[1], "finished", "failed")["status"] == "finished"


def test_a_client_that_gives_up_does_not_stop_the_load(tmp_path: Path) -> None:
    with several(tmp_path, "a", "b", seconds=0.3) as (up, loads):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{up.url}/v1/completions", json=body("b"), timeout=0.1)
        assert text_of(up.post("/v1/completions", body("b"))) == own(1)
        assert loads.count["b"] == 1
        assert threading.active_count() < 50
