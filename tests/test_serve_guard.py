"""What the server refuses: strange hosts and origins, missing keys, bodies that are too large or no JSON, files, code.

Covers the headers of every reply and the limits. Random requests: ``test_serve_fuzz.py``.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

import toy_engine
from kvorum.backends.fake import FakeBackend
from kvorum.errors import BadRequest
from kvorum.serve.settings import ServerSettings
from serving import KEY, Served, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(
        toy_engine.fake(name="toy"), tmp_path_factory.mktemp("store"), ticks=40, tokens=64, prompt_tokens=400
    ) as up:
        yield up


def test_health_is_what_computes(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 while the backend's processes have died or stand still, and 200 once they go on."""
    assert server.http.get("/health").status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(FakeBackend, "trouble", lambda _: "A worker process is stopped.")
        ill = server.http.get("/health")
        assert (ill.status_code, ill.json()["status"]) == (503, "degraded")
        assert ill.json()["trouble"] == "A worker process is stopped."
    assert server.http.get("/health").json()["trouble"] is None


def test_other_machines_need_a_key(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="--api-key"):
        ServerSettings(store=tmp_path, host="0.0.0.0")
    assert ServerSettings(store=tmp_path, host="0.0.0.0", api_key=KEY).host == "0.0.0.0"
    with pytest.raises(BadRequest, match="8 characters"):
        ServerSettings(store=tmp_path, api_key="short")


def test_key(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path, key=KEY) as server:
        for path in ("/v1/models", "/v1/runs", "/metrics", "/openapi.json", "/v1/nothing"):
            refused = server.http.get(path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
            for wrong in ("Bearer", "Bearer wrong-key", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xe9"):
                assert server.http.get(path, headers={b"Authorization": wrong.encode("latin-1")}).status_code == 401
        assert server.http.get("/health").status_code == 200
        assert server.http.get("/").status_code == 200
        assert server.http.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "", "[::1"])
def test_host(server: Served, host: str) -> None:
    """A page that resolves its own name to this machine gets nothing."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as line:
        line.sendall(f"GET /v1/runs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        reply = line.makefile("rb").readline()
    assert reply.split()[1] in (b"421", b"400")


def test_origin_and_cors(server: Served) -> None:
    for path in ("/v1/runs", "/v1/models"):
        assert server.http.get(path, headers={"Origin": "https://evil.example"}).status_code == 403
        assert server.http.get(path, headers={"Origin": "null"}).status_code == 403
        own = server.http.get(path, headers={"Origin": server.url})
        assert own.status_code == 200
        assert not [name for name in own.headers if name.startswith("access-control")]
    assert server.http.options("/v1/runs").status_code == 405


def test_page_and_headers(server: Served) -> None:
    page = server.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in (
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page/app.py",
        "/page/__init__.py",
        "/page/__pycache__/__init__.cpython-311.pyc",
        "/page/%2fetc%2fpasswd",
    ):
        assert server.http.get(path).status_code == 404
    assert server.http.get("/page/minutes.md").status_code == 200


def test_bodies(server: Served) -> None:
    def send(body: bytes, kind: str = "application/json") -> httpx.Response:
        return server.http.post("/v1/completions", content=body, headers={"Content-Type": kind})

    assert send(b"{}", "text/plain").status_code == 415
    assert send(b" " * (5 * 2**20)).status_code == 413
    assert server.http.post("/v1/completions", content=iter([b" " * 2**20] * 6)).status_code in (413, 415)
    for wrong in (
        b"{",
        b"[" * 100000,
        b'{"a": "\\ud800"}',
        b'"\xff"',
        '{"model": "toy"}'.encode("utf-16"),
        b"NaN",
        b"null",
    ):
        reply = send(wrong)
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b"", "The body is missing: send JSON.", None),
        (b"{", "The body is not JSON: Expecting property name enclosed in double quotes, at character 1.", None),
        (b"[" * 100000, "The body cannot be read as JSON: it is too deep, or has too long a number.", None),
        (b"5", "The body must be an object.", None),
        (b'{"prompt": 5}', "prompt must be text or a list.", "prompt"),
        (b'{"stop": ["a", 5]}', "stop.1 must be text.", "stop.1"),
        (
            b'{"stop": [%s]}' % b",".join([b'"a"'] * 17),
            "stop must have at most 16 items.",
            "stop",
        ),
        (b'{"temperature": "1"}', "temperature must be a number.", "temperature"),
        (b'{"seed": true}', "seed must be a whole number.", "seed"),
        (b'{"kvorum": {"x": 1}}', "There is no field 'x'; there are: params, budget, view, into.", "kvorum.x"),
    ],
)
def test_what_is_wrong_is_said(server: Served, body: bytes, message: str, param: str | None) -> None:
    if body.startswith(b'{"'):
        body = json.dumps({"model": "toy", "prompt": "a"} | json.loads(body)).encode()
    reply = server.http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    error = reply.json()["error"]
    assert (reply.status_code, error["message"], error["param"]) == (400, message, param)


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"porgram": "solo"}, "There is no field 'porgram'; did you mean program or params?", "porgram"),
        ({"problem": "x", "budget": {"tick": 3}}, "There is no field 'tick'; did you mean ticks?", "budget.tick"),
        ({"problem": "x", "budget": {"ticks": 0}}, "budget.ticks must be at least 1.", "budget.ticks"),
        ({"problem": "x", "workers": []}, "workers must not be empty.", "workers"),
        ({"problem": "x", "workers": "Bob"}, "workers must be a whole number or a list.", "workers"),
        ({"problem": 3, "paused": 1}, "problem must be text.", "problem"),
    ],
)
def test_an_unknown_field_is_named_before_all_else(
    server: Served, body: dict[str, object], message: str, param: str
) -> None:
    reply = server.post("/v1/runs", body)
    error = reply.json()["error"]
    assert (reply.status_code, error["message"], error["param"]) == (400, message, param)


def test_null_is_as_if_left_out(server: Served) -> None:
    nothing = {"params": None, "budget": None, "view": None, "into": None}
    for kvorum in (None, nothing):
        asked = {"model": "toy", "prompt": "a", "max_tokens": 2, "kvorum": kvorum, "stream_options": None}
        assert server.post("/v1/completions", asked).status_code == 200
    fields = ("workers", "params", "budget", "sampling", "seed", "paused", "program", "model")
    run = server.post("/v1/runs", {"problem": "x", **dict.fromkeys(fields)})
    assert (run.status_code, run.json()["seed"], run.json()["params"]) == (201, 0, {})
    server.http.delete(f"/v1/runs/{run.json()['id']}")
    refused = server.post("/v1/runs", {"problem": None})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "problem is missing.")


def test_methods(server: Served) -> None:
    """Allow has all that a path takes; what a monitor asks for has a head."""
    allowed = {"/v1/runs": "GET, HEAD, POST", "/v1/runs/x": "DELETE, GET, HEAD", "/health": "GET, HEAD"}
    allowed |= {"/": "GET, HEAD", "/page/main.js": "GET, HEAD", "/v1/models": "GET, HEAD", "/v1/completions": "POST"}
    for path, methods in allowed.items():
        refused = server.http.put(path)
        assert (refused.status_code, refused.headers["allow"]) == (405, methods)
    for path in (
        "/",
        "/health",
        "/page/main.js",
        "/v1/models",
        "/v1/models/toy",
        "/v1/runs",
        "/metrics",
        "/openapi.json",
    ):
        head = server.http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == server.http.get(path).headers["content-type"]


@pytest.mark.parametrize(
    "body",
    [
        {"problem": "x", "workers": 1000},
        {"problem": "x", "workers": ["a", "a"]},
        {"problem": "x", "workers": ["a\nb"]},
        {"problem": "x", "budget": {"ticks": 41}},
        {"problem": "x", "budget": {"hours": 1}},
        {"problem": "x" * 10000},
        {"problem": "  "},
        {"problem": "x", "program": "os.system"},
        {"problem": "x", "program": "tree", "params": {"export": "/tmp/there"}},
        {"problem": "x", "program": "tree", "params": {"tools": ["eval"]}},
        {"problem": "x", "params": {"layout": ["combined"]}},
        {"problem": "x", "params": {"layout": "nonsense"}},
        {"problem": "x", "params": {"check_every": "often"}},
        {"problem": "x", "params": {"final_tokens": "x"}},
        {"problem": "x", "program": "solo", "workers": 2},
        {"problem": "x", "model": "../toy"},
        {"problem": "x", "model": "/etc/passwd"},
        {"problem": "x", "sampling": {"temperature": -1}},
        {"problem": "x", "unknown": 1},
    ],
)
def test_runs_within_limits(server: Served, body: dict[str, object]) -> None:
    reply = server.post("/v1/runs", body)
    assert reply.status_code in (400, 404), reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_blocks_stay_in_the_store(server: Served, tmp_path: Path) -> None:
    for block in ("../../etc/passwd", "block_../x", "%2e%2e%2fx"):
        assert server.http.get(f"/v1/blocks/{block}").status_code == 404
        assert server.post(f"/v1/blocks/{block}/save").status_code == 404


def test_metrics_and_description(server: Served) -> None:
    server.post("/v1/completions", {"model": "toy", "prompt": "a", "max_tokens": 3})
    text = server.http.get("/metrics").text
    for name in ("kvorum_ticks_total", "kvorum_tick_seconds_bucket", "kvorum_pages_free", "kvorum_requests_waiting"):
        assert f"\n{name}" in text
    paths = server.http.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method, about in methods.items():
            good = [reply for status, reply in about["responses"].items() if status.startswith("2")]
            assert "422" not in about["responses"]  # it is a 400 here
            assert "429" not in about["responses"] or "Retry-After" in about["responses"]["429"]["headers"]
            assert all("content" in reply or "description" in reply for reply in good), (path, method)
            if method == "post" and not path.endswith(("/pause", "/resume", "/stop", "/save", "/cancel")):
                assert "requestBody" in about, path
