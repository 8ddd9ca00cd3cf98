"""MCP, with the official SDK's own client: over HTTP at `/mcp` and over stdio with `kvorum mcp`.

Covers each tool, blocks as resources and the news of them, what the official inspector looks at (templates, prompts,
completions, ping, codes of errors), errors as results, keys, hosts, a client that calls on after a restart, cancelled
runs, and that stdio carries nothing but messages. On the engine without a model.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPDeprecationWarning, MCPError, StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp_types import INVALID_PARAMS, PromptReference, ResourceTemplateReference

import toy_engine
from kvorum.serve.keys.api_key import ApiKey
from serving import KEY, Served, served

TOOLS = {"ask", "decide", "run_program", "create_block", "append_to_block", "read_block", "list_blocks"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(toy_engine.fake(name="toy"), tmp_path) as up:
        yield up


def with_client(target: Any, work: Callable[[Client], Awaitable[None]]) -> None:
    async def go() -> None:
        async with Client(target) as client:
            await work(client)

    asyncio.run(go())


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool returns, which is no error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    found: Any = result.structured_content
    assert json.loads(result.content[0].text) == found  # type: ignore[union-attr]
    return dict(found)


async def everything(client: Client) -> None:
    """Each tool once."""
    tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == TOOLS
    assert all(tool.description and tool.input_schema["type"] == "object" for tool in tools)
    made = await call(client, "create_block", text="Hello there.", name="notes")
    block = made["id"]
    resources = (await client.list_resources()).resources
    assert [(str(one.uri), one.name) for one in resources] == [(f"block://{block}", "notes")]
    more = await call(client, "append_to_block", block=block, text=" And on.")
    assert more["tokens"] > made["tokens"]
    (content,) = (await client.read_resource(f"block://{block}")).contents
    assert content.text == "Hello there. And on."  # type: ignore[union-attr]
    assert (await call(client, "read_block", block=block))["text"] == "Hello there. And on."
    assert [one["id"] for one in (await call(client, "list_blocks"))["data"]] == [block]
    asked = await call(client, "ask", block=block, questions=["What?", "Who?"], tokens=4)
    assert [one["question"] for one in asked["answers"]] == ["What?", "Who?"]
    question = {"type": "predicate", "instructions": "Is it so?", "name": "so"}
    decided = await call(client, "decide", block=block, questions=[question])
    assert 0 <= decided["answers"][0]["probability"] <= 1
    assert decided["usage"]["input_tokens_details"]["cached_tokens"] == more["tokens"]
    assert (await call(client, "decide", text="x", questions=[question]))["answers"][0]["name"] == "so"
    run = await call(client, "run_program", problem="Count.", program="vote", workers=2, ticks=8)
    assert run["id"].startswith("run_")
    for tool, arguments, says in (
        ("read_block", {"block": "block_none"}, "no block"),
        ("ask", {"questions": ["What?"]}, "one of the two"),
        ("decide", {"text": "x", "questions": [{"type": "box", "instructions": "?"}]}, "types are"),
        ("run_program", {"problem": "x", "program": "os.system"}, "program"),
    ):
        failed = await client.call_tool(tool, arguments)
        assert failed.is_error
        assert failed.structured_content is None
        assert says in failed.content[0].text  # type: ignore[union-attr]

    await inspected(client, block)


async def inspected(client: Client, block: str) -> None:
    """What an inspector asks, beside tools and resources: what is claimed is there, and errors have their codes."""
    (template,) = (await client.list_resource_templates()).resource_templates
    assert (template.uri_template, template.mime_type) == ("block://{block}", "text/plain")
    assert (await client.list_prompts()).prompts == []
    reference = ResourceTemplateReference(uri=template.uri_template)
    for typed, found in (("", [block]), ("block_", [block]), ("not", [block]), ("other", [])):
        completed = await client.complete(reference, {"name": "block", "value": typed})
        assert completed.completion.values == found
    assert client.server_capabilities.completions is not None
    assert client.server_capabilities.logging is None
    refused: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.call_tool("no_tool", {}),
        lambda: client.read_resource("block://block_none"),
        lambda: client.read_resource("file:///etc/passwd"),
        lambda: client.get_prompt("no_prompt"),
        lambda: client.complete(PromptReference(name="no_prompt"), {"name": "x", "value": ""}),
        lambda: client.complete(reference, {"name": "x", "value": ""}),
    ]
    for ask in refused:
        with pytest.raises(MCPError) as caught:
            await ask()
        assert caught.value.error.code == INVALID_PARAMS
    wrong = await client.call_tool("ask", {"questions": 3})
    assert wrong.is_error
    assert "questions" in wrong.content[0].text  # type: ignore[union-attr]


def test_over_http(server: Served) -> None:
    with_client(f"{server.url}/mcp", everything)


def test_a_client_of_the_older_protocol(server: Served) -> None:
    async def go() -> None:
        async with Client(f"{server.url}/mcp", mode="legacy") as client:
            with pytest.warns(MCPDeprecationWarning):
                await client.send_ping()
            block = (await call(client, "create_block", text="x", name="notes"))["id"]
            await inspected(client, block)
            assert client.server_capabilities.resources is not None
            assert not client.server_capabilities.resources.subscribe

    asyncio.run(go())


def test_who_listens_is_told_of_its_own_blocks(tmp_path: Path) -> None:
    """Blocks made over HTTP, too, that come, grow and go; what another key makes is not heard."""
    other = ApiKey.of("another-key-for-tests", "other")
    with served(toy_engine.fake(name="toy"), tmp_path, key=KEY, place={"api_keys": (other,)}) as up:
        mine, others = ({"Authorization": f"Bearer {key}"} for key in (KEY, "another-key-for-tests"))

        async def go() -> None:
            loop = asyncio.get_running_loop()

            async def make(path: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
                reply = await loop.run_in_executor(None, lambda: up.post(path, body, **headers))
                return dict(reply.json())

            old = (await make("/v1/blocks", {"text": "x"}, mine))["id"]
            http = httpx2.AsyncClient(headers=mine)
            async with http, Client(streamable_http_client(f"{up.url}/mcp", http_client=http)) as client:
                uri = f"block://{old}"
                async with client.listen(resources_list_changed=True, resource_subscriptions=[uri]) as heard:
                    await asyncio.sleep(0.7)  # until it has looked
                    await make("/v1/blocks", {"text": "y"}, others)
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(anext(aiter(heard)), 1.2)
                    await make("/v1/blocks", {"text": "y"}, mine)
                    assert await asyncio.wait_for(anext(aiter(heard)), 5) == ResourcesListChanged()
                    await make(f"/v1/blocks/{old}/append", {"text": "z"}, mine)
                    assert await asyncio.wait_for(anext(aiter(heard)), 5) == ResourceUpdated(uri)

        asyncio.run(go())


def test_over_stdio(server: Served) -> None:
    command = ["-m", "kvorum.cli", "mcp", "--server", server.url]
    with_client(
        stdio_client(StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))), everything
    )


def test_stdio_carries_messages_alone(server: Served) -> None:
    """One JSON object a line, also where no server answers."""
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    use = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "list_blocks", "arguments": {}}}
    words = [sys.executable, "-m", "kvorum.cli", "mcp", "--server", "http://127.0.0.1:1"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(json.dumps(one) + "\n" for one in (hello, ready, use)))
        process.stdin.flush()
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.stdin.close()
        assert process.stdout.read() == ""
    assert (first["id"], second["id"]) == (1, 2)
    assert first["result"]["serverInfo"]["name"] == "kvorum"
    assert second["result"]["isError"]
    assert "kvorum serve" in second["result"]["content"][0]["text"]


def test_key_and_host(tmp_path: Path) -> None:
    """The key of who calls is the key of what is called; a strange host gets nothing."""
    with served(toy_engine.fake(name="toy"), tmp_path, key=KEY) as up:
        assert up.http.post("/mcp", json={}).status_code == 401
        assert up.http.post("/mcp", json={}, headers={"Host": "evil.example"}).status_code == 421
        assert up.http.post("/mcp", json={}, headers={"Origin": "https://evil.example"}).status_code == 403

        async def go() -> None:
            http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"})
            async with http, Client(streamable_http_client(f"{up.url}/mcp", http_client=http)) as client:
                made = await call(client, "create_block", text="Hello.")
                assert len((await client.list_resources()).resources) == 1
                assert (await call(client, "read_block", block=made["id"]))["text"] == "Hello."

        asyncio.run(go())


HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
ACCEPTS = {"Accept": "application/json, text/event-stream"}


def sent(server: Served, method: str, params: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    """A request as it stands; its status and its message, from a body or an event."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    reply = server.http.post("/mcp", json=body, headers=ACCEPTS | named)
    assert "mcp-session-id" not in reply.headers
    return reply.status_code, json.loads(reply.text.rpartition("data: ")[2])


def test_a_session_of_before_begins_again(server: Served) -> None:
    """There are none, so one that a client still names changes nothing, in its first request and later ones."""
    for method, params in (("initialize", HELLO), ("tools/list", {})):
        status, message = sent(server, method, params, Mcp_Session_Id="of-before")
        assert status == 200
        assert message["result"]["serverInfo" if method == "initialize" else "tools"]


def test_versions_of_the_protocol(server: Served) -> None:
    """Every refusal is a JSON-RPC error; one of a version names those that there are; what disagrees is not read."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    listing = {"Mcp_Method": "tools/list"}
    told = {"_meta": meta}
    status, message = sent(server, "tools/list", told, MCP_Protocol_Version="2026-07-28", **listing)
    assert (status, {tool["name"] for tool in message["result"]["tools"]}) == (200, TOOLS)
    newer, older = {"MCP_Protocol_Version": "2026-07-28"}, {"MCP_Protocol_Version": "2025-06-18"}
    for headers in (older | listing, listing, newer | {"Mcp_Method": "tools/call"}):
        status, message = sent(server, "tools/list", told, **headers)
        assert (status, message["id"], message["error"]["code"]) == (400, 1, -32020)
    later = {"_meta": meta | {"io.modelcontextprotocol/protocolVersion": "2031-01-01"}}
    status, message = sent(server, "tools/list", later, MCP_Protocol_Version="2031-01-01", **listing)
    assert (status, message["error"]["code"]) == (400, -32022)
    assert "2026-07-28" in message["error"]["data"]["supported"]
    status, message = sent(server, "tools/list", {}, MCP_Protocol_Version="what is this")
    assert status == 400
    assert message["jsonrpc"] == "2.0"
    assert message["error"]["message"]
    status, message = sent(server, "initialize", HELLO | {"protocolVersion": "1999-01-01"})
    assert status == 200
    assert message["result"]["protocolVersion"] >= "2025-06-18"


def test_what_is_no_message_is_refused(server: Served) -> None:
    bodies: list[Any] = [{}, [], {"jsonrpc": "2.0"}, {"jsonrpc": "2.0", "id": 1, "method": "no/such"}]
    for body in bodies:
        reply = server.http.post("/mcp", json=body, headers={"Accept": "application/json, text/event-stream"})
        assert reply.status_code < 500
    assert server.http.delete("/mcp").status_code < 500
    assert server.free()
