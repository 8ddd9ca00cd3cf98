"""The server behind proxies, and for plain or old clients: sub-paths, forwarded headers, HTTP/1.0, HEAD, text."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

import toy_engine
from kvorum import Engine
from kvorum.errors import BadRequest
from kvorum.serve.api.event_stream import event, one_line
from kvorum.serve.settings import ServerSettings
from serving import Served, served

PUBLIC = {"names": ("public.example", "other.example:8443"), "root_path": "/kvorum"}
ASK = {"model": "toy", "prompt": "a", "max_tokens": 4, "seed": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(toy_engine.fake(name="toy"), tmp_path_factory.mktemp("store"), place=PUBLIC) as up:
        yield up


def raw(server: Served, request: str, body: bytes = b"") -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and all that comes until the server closes."""
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request.replace("\n", "\r\n").encode() + b"\r\n" + body)
        found = b""
        while part := client.recv(65536):
            found += part
    head, _, rest = found.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}, rest


# -- sub-paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/kvorum"])  # stripped by the proxy, or not
def test_all_is_there_under_a_sub_path(server: Served, prefix: str) -> None:
    page = server.http.get(f"{prefix}/")
    files = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    assert len(files) >= 6
    for file in files:
        assert not file.startswith("/")  # the browser asks for it where the page is
        assert server.http.get(f"{prefix}/{file}").status_code == 200, file
    assert server.http.get(f"{prefix}/v1/models").json()["data"][0]["id"] == "toy"
    assert server.post(f"{prefix}/v1/completions", ASK).status_code == 200
    assert server.http.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "/kvorum"}]
    refused = server.http.put(f"{prefix}/v1/models")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_without_the_slash_the_page_is_one_step_on(server: Served) -> None:
    moved = server.http.get("/kvorum")
    assert (moved.status_code, moved.headers["location"]) == (307, "/kvorum/")


def test_modules_of_the_page_ask_where_they_are() -> None:
    """No file of the page names a path from the root of a host."""
    page = Path(__file__).parent.parent / "src" / "kvorum" / "serve" / "page"
    for file in (*page.glob("*.js"), *page.glob("*.css"), *page.glob("*.html")):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"""(?:from|import|href=|src=|fetch\(|url\()\s*["'`]?/""", text), file.name


def test_a_key_opens_no_other_door_under_a_sub_path(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path, key="a long key", place=PUBLIC) as server:
        for path in ("/v1/models", "/kvorum/v1/models", "/kvorum/kvorum/", "/kvorumpage/x"):
            assert server.http.get(path).status_code == 401, path
        for path in ("/", "/kvorum/", "/kvorum/page/main.js", "/page/main.js", "/kvorum/health"):
            assert server.http.get(path).status_code == 200, path
        assert server.http.get("/kvorum").status_code == 307


@pytest.mark.parametrize("path", ["kvorum", "/kvorum/", "/", "//x", "/a b", "/a?b"])
def test_a_root_path_is_one(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadRequest, match="like /kvorum"):
        ServerSettings(store=tmp_path, root_path=path)


# -- forwarded headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://public.example"}, 200),  # the proxy asks under the address that it has
        ({"Origin": "https://PUBLIC.example", "Host": "public.example"}, 200),
        ({"Origin": "https://other.example:8443"}, 200),
        ({"Origin": "https://public.example:9000", "X-Forwarded-Host": "public.example:9000"}, 200),
        ({"Origin": "https://public.example:9000", "X-Forwarded-Host": "public.example:9000, proxy"}, 200),
        ({"Origin": "https://public.example:9000"}, 403),  # another server on that host
        ({"Origin": "https://other.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "null", "X-Forwarded-Host": ""}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example", "X-Forwarded-Host": "public.example"}, 421),
        ({"Host": "other.example:1"}, 200),
    ],
)
def test_who_may_ask(server: Served, headers: dict[str, str], status: int) -> None:
    assert server.post("/v1/completions", ASK, **headers).status_code == status


def test_no_origin_is_let_in_where_any_host_is(tmp_path: Path) -> None:
    place = {"host": "0.0.0.0"}
    with served(toy_engine.fake(name="toy"), tmp_path, key="a long key", place=place) as server:
        key = {"Authorization": "Bearer a long key"}
        for origin, status in (("null", 403), ("http://evil.example", 403), ("http://box:1", 200)):
            assert server.post("/v1/completions", ASK, **key, Host="box:1", Origin=origin).status_code == status


# -- HTTP/1.0 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/runs/RUN/events"])
def test_http_1_0_gets_no_chunks(server: Served, path: str) -> None:
    """nginx speaks it to what is behind it unless it is told otherwise; a reply ends with the connection."""
    run = server.run(program="solo", workers=1, budget={"ticks": 3})["id"]
    server.until(run, "finished")
    body = json.dumps(ASK | {"stream": True}).encode()
    if path.endswith("events"):
        request, body = f"GET {path.replace('RUN', run)} HTTP/1.0\nHost: localhost\n", b""
    else:
        about = f"Content-Type: application/json\nContent-Length: {len(body)}\n"
        request = f"POST {path} HTTP/1.0\nHost: localhost\n{about}"
    first, headers, rest = raw(server, request, body)
    assert first.split()[1] == "200"
    assert "transfer-encoding" not in headers
    lines = rest.decode().split("\n")
    assert all(line == "" or re.match(r"(data|event|id|retry): ", line) for line in lines), lines
    if not path.endswith("events"):
        assert lines[-3:] == ["data: [DONE]", "", ""]


def test_http_1_1_streams_in_chunks(server: Served) -> None:
    """Also where its first line comes in pieces."""
    body = json.dumps(ASK | {"stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    request = f"{head}Content-Type: application/json\r\n\r\n".encode() + body
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request[:40]:
            client.sendall(bytes([byte]))
        client.sendall(request[40:])
        found = b""
        while part := client.recv(65536):
            found += part
    assert b"transfer-encoding: chunked" in found
    assert found.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_head_is_there_where_get_is(server: Served) -> None:
    """Its headers are those of GET, and that is all of it, also of a stream that goes on."""
    run = server.run(program="solo", workers=1, paused=True)["id"]
    for path in ("/v1/models", "/v1/runs", f"/v1/runs/{run}", "/health", "/", "/page/main.js", "/v1/programs"):
        head, get = server.http.head(path), server.http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length"):
            assert (head.headers[name], path) == (get.headers[name], path) or path == "/health"
    head = server.http.head(f"/v1/runs/{run}/events")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert server.http.head("/v1/runs/none").status_code == 404
    assert server.http.head("/v1/completions").status_code == 405
    server.http.delete(f"/v1/runs/{run}")


# -- text ------------------------------------------------------------------------------------------------------------


def test_an_event_is_one_line_for_everyone() -> None:
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei\rj\nk 日本"
    written = event({"text": text})
    assert written.endswith("\n\n")
    assert len(written.splitlines()) == 2
    assert json.loads(written.removeprefix("data: ")) == {"text": text}
    assert "日本" in one_line('{"a": "日本"}')


def test_streams_survive_splitlines(server: Served) -> None:
    """What a run is asked comes back in its events and its trace, with whatever some take for ends of lines."""
    problem = "one\u2028two\u2029three\u0085four"
    run = server.run(problem=problem, program="solo", workers=1, budget={"ticks": 2})["id"]
    server.until(run, "finished")
    events = server.http.get(f"/v1/runs/{run}/events").text
    data = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: ")]
    assert not [line for line in events.splitlines() if not re.match(r"$|(data|event|id|retry): ", line)]
    assert {one["problem"] for one in data if "problem" in one} == {problem}
    lines = server.http.get(f"/v1/runs/{run}/trace").text.splitlines()
    assert len([json.loads(line) for line in lines]) == server.show(run)["events"]


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32-be", "latin-1"])
def test_json_is_utf_8_on_the_way_in(server: Served, coding: str) -> None:
    content = json.dumps(ASK | {"prompt": "größer"}, ensure_ascii=False).encode(coding)
    reply = server.http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, "The body is not JSON in UTF-8.")


def test_json_is_utf_8_on_the_way_out(server: Served) -> None:
    reply = server.post("/v1/completions", ASK | {"prompt": "größer 日本 🫠", "echo": True})
    assert "größer 日本 🫠" in reply.content.decode("utf-8")
    assert reply.headers["content-type"] == "application/json"
    refused = httpx.get(f"{server.url}/v1/blocks/größer")
    assert "größer" in refused.content.decode("utf-8")


def streamed(server: Served, path: str, **body: Any) -> list[dict[str, Any]]:
    reply = server.post(path, {"model": "toy", "max_tokens": 4, "seed": 1, "stream": True, **body})
    lines = [line[6:] for line in reply.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_usage_is_null_in_all_chunks_but_the_last(server: Served, path: str) -> None:
    body = {"prompt": "a"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "a"}]}
    *parts, last = streamed(server, path, **body, stream_options={"include_usage": True})
    assert parts
    assert all(part["usage"] is None and len(part["choices"]) == 1 for part in parts)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 4)
    assert all("usage" not in part for part in streamed(server, path, **body))


# -- the ends of ranges ----------------------------------------------------------------------------------------------


def text(server: Served, **body: Any) -> str:
    reply = server.post("/v1/completions", ASK | {"max_tokens": 24, "temperature": 1.5, **body})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["text"])


def test_top_p_of_nothing_is_the_likeliest_token(server: Served) -> None:
    assert text(server, top_p=0) == text(server, temperature=0) != text(server, top_p=1)
    run = server.run(program="solo", workers=1, budget={"ticks": 4}, sampling={"top_p": 0})
    assert run["sampling"]["top_p"] == 0


def test_seeds_of_64_bits_are_all_different(server: Served) -> None:
    seeds = [-1, 1, 0, 2**63 - 1, -(2**63), -(2**63) + 1, 2**62, -(2**62)]
    assert len({text(server, seed=seed) for seed in seeds}) == len(seeds)
    assert text(server, seed=-1) == text(server, seed=-1)
    runs = [server.run(program="solo", workers=1, budget={"ticks": 1}, seed=seed) for seed in (-1, 2**63 - 1)]
    assert runs[0]["seed"] != runs[1]["seed"]


def test_penalties_and_biases_are_taken(server: Served) -> None:
    """Each changes the reply; a bias decides it; a run's are stored with it and said."""
    plain = text(server)
    changes: list[dict[str, Any]] = [
        {"frequency_penalty": 2},
        {"presence_penalty": -2},
        {"repetition_penalty": 9},
        {"logit_bias": {"65": -100}},
    ]
    for given in changes:
        assert text(server, **given) != plain
    chosen = server.post("/v1/completions", ASK | {"logit_bias": {"66": 100}, "temperature": 0}).json()
    assert chosen["choices"][0]["text"] == "c" * 4
    given = {"repetition_penalty": 1.5, "dry_multiplier": 0.8, "logit_bias": {"66": 100}}
    run = server.run(program="solo", workers=1, budget={"ticks": 4}, sampling=given)
    assert given.items() <= server.show(run["id"])["sampling"].items()
    server.until(run["id"], "finished")
    assert given.items() <= server.events(run["id"])[0]["sampling"].items()


@pytest.mark.parametrize(
    ("name", "least", "most", "beyond"),
    [
        ("temperature", 0, 2, -0.1),
        ("top_p", 0, 1, 1.1),
        ("n", 1, 16, 0),
        ("presence_penalty", -2, 2, 2.1),
        ("frequency_penalty", -2, 2, -2.1),
        ("seed", -9223372036854776000, 9223372036854776000, 2**64),
        ("logprobs", 0, 5, 21),
    ],
)
def test_ends_of_ranges(server: Served, name: str, least: float, most: float, beyond: float) -> None:
    """Those of OpenAI's reference are taken; what is beyond ours is refused."""
    for value, status in ((least, 200), (most, 200), (beyond, 400)):
        reply = server.post("/v1/completions", ASK | {name: value})
        assert reply.status_code == status, (value, reply.text)


# -- positions -------------------------------------------------------------------------------------------------------


def test_a_prompt_beyond_the_trained_positions_is_refused(tmp_path: Path) -> None:
    model = toy_engine.model()
    model.config.max_position_embeddings = 64
    engine = Engine(model, toy_engine.tokenizer(), kv_tokens=4096, page_size=4, name="toy")
    assert engine.shape.longest == 64
    with served(engine, tmp_path) as server:
        long, short = [5] * 65, [5] * 40
        chat = {"model": "toy", "messages": [{"role": "user", "content": "x" * 80}]}
        for path, body in {
            "/v1/completions": {"model": "toy", "prompt": long, "max_tokens": 1},
            "/v1/chat/completions": chat,
            "/v1/chat/completions?program": chat | {"model": "toy:solo-1"},
            "/v1/runs": {"problem": "x" * 80, "program": "solo", "workers": 1},
            "/v1/blocks": {"ids": long},
        }.items():
            error = server.post(path, body)
            assert (error.status_code, error.json()["error"]["code"]) == (400, "context_length_exceeded"), path
            assert "64 positions" in error.json()["error"]["message"]
        assert server.post("/v1/completions", {"model": "toy", "prompt": short, "max_tokens": 24}).status_code == 200
        assert server.post("/v1/completions", {"model": "toy", "prompt": short, "max_tokens": 25}).status_code == 400
        block = server.post("/v1/blocks", {"ids": short}).json()["id"]
        assert server.post(f"/v1/blocks/{block}/append", {"ids": short}).status_code == 400
        behind = {"model": "toy", "prompt": short, "max_tokens": 1, "kvorum": {"view": [{"block": block}]}}
        assert server.post("/v1/completions", behind).status_code == 400
        assert server.free() or server.http.delete(f"/v1/blocks/{block}")
