"""API keys: what is one key's is unseen by another on every route; limits a minute, their headers, and errors.

Covers the file of keys, `--api-key` as the one-key case, models of a key, prompts that are not shared between keys,
what is left over a restart, and that no key is in a log, a reply or a stored file. Not covered: the page's dialog.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

import toy_engine
from kvorum.errors import BadRequest
from kvorum.serve.errors import ApiError
from kvorum.serve.keys.allowance import Allowance
from kvorum.serve.keys.api_key import ApiKey, find_key, read_keys
from kvorum.serve.keys.limit_headers import limit_headers
from kvorum.serve.settings import ServerSettings
from serving import Served, served

ANNA, BERT = "anna-key-0123456789", "bert-key-0123456789"
LONG = "The quick brown fox jumps over the lazy dog. " * 3


def keys(**bert: Any) -> dict[str, Any]:
    """Settings with two keys, of which the second has limits."""
    anna = ApiKey.of(ANNA, "anna")
    return {"api_keys": (anna, ApiKey.of(BERT, "bert").model_copy(update=bert))}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(toy_engine.fake(name="toy"), tmp_path, place=keys()) as up:
        yield up


def ask(server: Served, key: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    """A request with a key."""
    return server.http.request(method, path, json=body, headers={"Authorization": f"Bearer {key}", **headers})


def made(server: Served, key: str) -> dict[str, str]:
    """One of each thing that a request can make, by the name of its place in paths."""
    block = ask(server, key, "POST", "/v1/blocks", {"text": LONG, "name": "secret"}).json()["id"]
    assert ask(server, key, "POST", f"/v1/blocks/{block}/save").status_code == 200
    run = ask(server, key, "POST", "/v1/runs", {"problem": "Count.", "budget": {"ticks": 4}, "paused": True}).json()
    said = {"model": "toy", "input": "Hello there.", "max_output_tokens": 3}
    response = ask(server, key, "POST", "/v1/responses", said).json()
    return {"block": block, "run": run["id"], "response": response["id"]}


BODIES: dict[str, Any] = {
    "/v1/runs/{run}/commands": {"kind": "answer"},
    "/v1/runs/{run}/fork": {"tick": 0},
    "/v1/blocks/{block}/append": {"text": "x"},
}


def paths(server: Served) -> list[tuple[str, str]]:
    """Each method and path with an id in it that the server describes."""
    described = server.http.get("/openapi.json", headers={"Authorization": f"Bearer {ANNA}"}).json()["paths"]
    found = [(method.upper(), path) for path, methods in described.items() for method in methods if "{" in path]
    return [one for one in found if "{name}" not in one[1]]


def test_every_route_says_that_there_is_nothing_of_anothers(server: Served) -> None:
    """Routes are read off the server's description, so that none that is added later is left out."""
    ids = made(server, ANNA)
    routes = paths(server)
    assert {name for _, path in routes for name in ("block", "run", "response") if f"{{{name}}}" in path} == set(ids)
    assert len(routes) > 15
    for method, path in routes:
        there = path.format(**ids)
        nowhere = path.format(block="block_none", run="run_none", response="resp_none")
        refused, missing = (
            ask(server, BERT, method, at, BODIES.get(path) if method == "POST" else None) for at in (there, nowhere)
        )
        assert (refused.status_code, missing.status_code) == (404, 404), (method, path, refused.text)
        for name, one in ids.items():  # and in the very words of what was never there
            none = {"block": "block_none", "run": "run_none", "response": "resp_none"}[name]
            assert refused.text.replace(one, none) == missing.text or one not in refused.text
    for kind in ("runs", "blocks"):
        assert ask(server, BERT, "GET", f"/v1/{kind}").json()["data"] == []
        assert [one["id"] for one in ask(server, ANNA, "GET", f"/v1/{kind}").json()["data"]] == [ids[kind[:-1]]]
    assert ask(server, BERT, "GET", f"/v1/runs?before={ids['run']}").status_code == 404
    for method, path in routes:  # nothing of it was changed
        if method == "GET" and not path.endswith("/events"):
            assert ask(server, ANNA, method, path.format(**ids)).status_code == 200, path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a", "kvorum": {"view": [{"block": "{block}"}]}}),
        ("/v1/completions", {"prompt": "a", "kvorum": {"into": "{block}"}}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "kvorum": {"into": "{block}"}}),
        ("/v1/blocks", {"text": "a", "view": [{"block": "{block}"}]}),
        ("/v1/ask", {"documents": {"a": {"block": "{block}"}}, "questions": ["What?"]}),
        ("/v1/fields", {"document": {"block": "{block}"}, "schema": {"type": "object", "properties": {}}}),
        ("/v1/decisions", {"view": [{"block": "{block}"}], "questions": [{"type": "predicate", "instructions": "?"}]}),
        (
            "/v1/systemone",
            {"view": [{"block": "{block}"}], "questions": {"a": {"type": "predicate", "instructions": "?"}}},
        ),
        ("/v1/responses", {"input": "a", "previous_response_id": "{response}"}),
        ("/v1/responses", {"input": "a", "kvorum": {"view": [{"block": "{block}"}]}}),
    ],
)
def test_a_body_cannot_name_what_is_anothers(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path, place=keys()) as server:
        ids = made(server, ANNA)
        text = json.dumps(body)
        for name, one in ids.items():
            text = text.replace(f"{{{name}}}", one)
        asked = json.loads(text) | ({} if path == "/v1/blocks" else {"model": "toy"})
        refused = ask(server, BERT, "POST", path, asked)
        assert refused.status_code == 404, refused.text
        own = ask(server, ANNA, "POST", path, asked)
        assert own.status_code != 404, own.text


def test_prompts_are_not_shared_between_keys(server: Served) -> None:
    """How much of a prompt is cached would tell that somebody has sent it."""

    def cached(key: str) -> int:
        reply = ask(server, key, "POST", "/v1/completions", {"model": "toy", "prompt": LONG, "max_tokens": 2})
        return int(reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert (cached(ANNA), cached(ANNA) > 0, cached(BERT), cached(BERT) > 0) == (0, True, 0, True)
    kept = {"documents": {"a": LONG}, "questions": ["What?"], "keep": True, "tokens": 2}

    def loaded(key: str) -> int:
        return int(ask(server, key, "POST", "/v1/ask", kept).json()["usage"]["input_tokens_details"]["cached_tokens"])

    assert (loaded(ANNA), loaded(ANNA) > 0, loaded(BERT), loaded(BERT) > 0) == (0, True, 0, True)
    runs = {"problem": LONG, "budget": {"ticks": 2}}
    ids = [ask(server, key, "POST", "/v1/runs", runs).json()["id"] for key in (ANNA, BERT)]
    for key, run in zip((ANNA, BERT), ids, strict=True):
        while ask(server, key, "GET", f"/v1/runs/{run}").json()["status"] in ("queued", "running"):
            pass


def test_mcp_shows_a_client_its_own(server: Served) -> None:
    ids = made(server, ANNA)

    async def blocks(header: dict[str, str]) -> list[str]:
        async with httpx2.AsyncClient(headers=header) as http:
            transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
            async with Client(transport) as client:
                found = [str(one.uri) for one in (await client.list_resources()).resources]
                read = await client.call_tool("read_block", {"block": ids["block"]})
                assert read.is_error == (f"block://{ids['block']}" not in found)
                return found

    assert asyncio.run(blocks({"x-api-key": ANNA})) == [f"block://{ids['block']}"]
    assert asyncio.run(blocks({"Authorization": f"Bearer {BERT}"})) == []


def test_owners_outlive_the_server(tmp_path: Path) -> None:
    """So do runs under way, which go on for whom they were begun; what was made without keys is the key `default`'s."""
    engine = toy_engine.fake(name="toy")
    with served(engine, tmp_path) as server:
        before = server.run(budget={"ticks": 2})["id"]
    with served(toy_engine.fake(name="toy"), tmp_path, place=keys()) as server:
        ids = made(server, ANNA)
        assert ask(server, ANNA, "GET", f"/v1/runs/{before}").status_code == 404
    with served(toy_engine.fake(name="toy"), tmp_path, key="a-third-key", place=keys()) as server:
        for kind, one in ids.items():
            statuses = [
                ask(server, key, "GET", f"/v1/{kind}s/{one}").status_code for key in (ANNA, BERT, "a-third-key")
            ]
            assert statuses == [200, 404, 404], kind
        assert ask(server, "a-third-key", "GET", f"/v1/runs/{before}").status_code == 200
        assert ask(server, ANNA, "POST", f"/v1/runs/{ids['run']}/resume").status_code == 200


def test_a_key_is_for_its_models(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path, place=keys(models=("other",))) as server:
        body = {"model": "toy", "prompt": "a", "max_tokens": 1}
        assert ask(server, ANNA, "POST", "/v1/completions", body).status_code == 200
        refused = ask(server, BERT, "POST", "/v1/completions", body)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (403, "model_not_allowed", "model")
        assert ask(server, BERT, "GET", "/v1/models").json()["data"] == []
        said = {"model": "toy", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
        other = server.http.post("/v1/messages", json=said, headers={"x-api-key": BERT})
        assert (other.status_code, other.json()["error"]["type"]) == (403, "permission_error")


def test_limits_and_their_headers(tmp_path: Path) -> None:
    """In OpenAI's form and in Anthropic's; another key feels nothing of it; questions without work are not counted."""
    with served(toy_engine.fake(name="toy"), tmp_path, place=keys(requests_per_minute=3)) as server:
        body = {"model": "toy", "prompt": "a", "max_tokens": 1}
        said = {"model": "toy", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
        first = ask(server, BERT, "POST", "/v1/completions", body)
        assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == (
            "3",
            "2",
        )
        assert first.headers["x-ratelimit-reset-requests"].endswith("s")
        for _ in range(5):
            assert ask(server, BERT, "GET", "/v1/models").status_code == 200
        second = server.http.post("/v1/messages", json=said, headers={"x-api-key": BERT})
        assert second.headers["anthropic-ratelimit-requests-remaining"] == "1"
        assert second.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        ask(server, BERT, "POST", "/v1/completions", body)
        refused = ask(server, BERT, "POST", "/v1/completions", body)
        error = refused.json()["error"]
        assert (refused.status_code, error["type"], error["code"]) == (429, "requests", "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        other = server.http.post("/v1/messages", json=said, headers={"x-api-key": BERT})
        assert (other.status_code, other.json()["error"]["type"]) == (429, "rate_limit_error")
        assert int(other.headers["retry-after"]) >= 1
        free = ask(server, ANNA, "POST", "/v1/completions", body)
        assert free.status_code == 200
        assert not [name for name in free.headers if "ratelimit" in name]


def test_tokens_of_all_kinds_of_work_are_counted(tmp_path: Path) -> None:
    """What a request costs is taken as it is computed: replies, runs, blocks, questions."""
    most = 10**6
    with served(toy_engine.fake(name="toy"), tmp_path, place=keys(tokens_per_minute=most)) as server:
        allowance = server.service.keys.resumed("bert").allowance
        assert allowance is not None
        allowance._levels["tokens"]._clock = lambda: 0.0
        allowance._levels["tokens"]._at = 0.0

        def cost(method: str, path: str, body: Any) -> int:
            before = allowance.left()[0].left
            reply = ask(server, BERT, method, path, body)
            assert reply.status_code < 300, reply.text
            if path == "/v1/runs":
                while ask(server, BERT, "GET", f"/v1/runs/{reply.json()['id']}").json()["status"] != "finished":
                    pass
            return before - allowance.left()[0].left

        body = {"model": "toy", "prompt": "abc", "max_tokens": 5}
        assert 4 <= cost("POST", "/v1/completions", body) <= 8
        assert cost("POST", "/v1/blocks", {"ids": [1, 2, 3]}) == 3
        ledger = cost("POST", "/v1/runs", {"problem": "x", "program": "solo", "budget": {"ticks": 5}})
        assert ledger > 5
        asked = {"documents": {"a": "abc"}, "questions": ["What?"], "tokens": 2}
        assert cost("POST", "/v1/ask", asked) > 5
        decided = {"model": "toy", "input": "abc", "questions": [{"type": "predicate", "instructions": "Is it?"}]}
        assert cost("POST", "/v1/decisions", decided) > 5


def test_a_level_fills_evenly_and_may_be_overdrawn() -> None:
    now = 0.0
    limits = {"requests_per_minute": 60, "tokens_per_minute": 600}
    allowance = Allowance(ApiKey.of(BERT, "bert").model_copy(update=limits), lambda: now)
    for _ in range(60):
        allowance.begin()
    with pytest.raises(ApiError, match="60 requests a minute") as refused:
        allowance.begin()
    assert refused.value.headers["Retry-After"] == "1"
    now = 1.0
    allowance.begin()
    now = 1000.0
    assert [one.left for one in allowance.left()] == [60, 600]
    allowance.spend(700)
    with pytest.raises(ApiError, match="600 tokens a minute") as refused:
        allowance.begin()
    assert refused.value.headers["Retry-After"] == "11"  # 101 tokens at 10 a second
    assert (refused.value.kind, [one.left for one in allowance.left()]) == ("tokens", [60, 0])
    told = dict(limit_headers(allowance.left(), "/v1/completions"))
    assert told[b"x-ratelimit-reset-tokens"] == b"1m10s"
    assert told[b"x-ratelimit-reset-requests"] == b"0ms"
    now = 1011.0
    allowance.begin()


def test_the_file_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    digest = hashlib.sha256(BERT.encode()).hexdigest()
    file.write_text(
        f'[[keys]]\nname = "anna"\nkey = ["{ANNA}", "anna-old-key"]\nmodels = ["toy"]\n'
        f'[[keys]]\nname = "bert"\nsha256 = "{digest}"\nrequests_per_minute = 60\ntokens_per_minute = 1000\n'
    )
    found = read_keys(file)
    assert [(key.name, key.models, key.tokens_per_minute) for key in found] == [
        ("anna", ("toy",), None),
        ("bert", (), 1000),
    ]
    opened = [find_key(found, text.encode()) for text in (ANNA, "anna-old-key", BERT, "bert-key", "")]
    assert [key and key.name for key in opened] == ["anna", "anna", "bert", None, None]
    assert ANNA not in repr(found)
    settings = ServerSettings(store=tmp_path, host="0.0.0.0", api_keys=found, api_key="one-more-key")
    assert [key.name for key in settings.keys] == ["default", "anna", "bert"]
    assert "one-more-key" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keys = 5", "list"),
        ("", "keys"),
        ("[[keys]]\nname = 'a'", "neither key nor sha256"),
        ("[[keys]]\nname = 'a'\nsha256 = 'secretsecret'", "64 hexadecimal digits"),
        ("[[keys]]\nname = 'a'\nkey = 'secret'", "at least 8 characters"),
        ("[[keys]]\nname = 'a'\nkey = 'secret\u00e9secret'", "no header can carry"),
        ("[[keys]]\nname = 'a b'\nkey = 'secretsecret'", "name"),
        ("[[keys]]\nname = 'a'\nkey = 'secretsecret'\nlimit = 3", "limit"),
        ("[[keys]]\nname = 'a'\nkey = 'secretsecret'\nrequests_per_minute = 0", "requests_per_minute"),
        ("[[keys]]\nname = 'a'\nkey = 'secretsecret'\n[[keys]]\nname = 'a'\nkey = 'secretother'", "named a"),
        ("[[keys]]\nname = 'a'\nkey = 'secretsecret'\n[[keys]]\nname = 'b'\nkey = 'secretsecret'", "opens two keys"),
        ("[[keys]\nname = 'secretsecret'", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_is_refused_without_its_keys(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadRequest, match=says) as refused:
        ServerSettings(store=tmp_path, api_keys=read_keys(file))
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_no_key_is_written_anywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with served(toy_engine.fake(name="toy"), tmp_path, place=keys()) as server:
        made(server, ANNA)
        for path in ("/v1/nothing", "/v1/runs/x", "/metrics", "/health", "/openapi.json", "/v1/runs", "/v1/blocks"):
            said.append(ask(server, ANNA, "GET", path).text)
        said.append(ask(server, f"{ANNA}x", "GET", "/v1/runs").text)
        said.append(ask(server, ANNA, "POST", "/v1/completions", {"model": ANNA[:4], "prompt": 5}).text)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert ANNA not in "".join(said)
    assert ANNA not in caplog.text
    assert ANNA.encode() not in stored
