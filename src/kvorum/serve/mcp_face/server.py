"""The MCP server: its tools and resources, on the HTTP API that ``ApiCalls`` reaches."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated
from urllib.parse import quote

from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    Completion,
    CompletionArgument,
    CompletionContext,
    GetPromptResult,
    InputRequiredResult,
    PromptReference,
    Resource,
    ResourceTemplateReference,
    ToolAnnotations,
)
from pydantic import Field, JsonValue

from kvorum.jsontypes import Json
from kvorum.serve.mcp_face.api_calls import ApiCalls, NotThere
from kvorum.serve.mcp_face.block_changes import BlockChanges
from kvorum.wording import unknown

ABOUT = (
    "A local language model whose memory can be shared: texts are encoded into blocks, and many questions are asked of "
    "a text or a block at once. Blocks are resources, block://ID."
)
BLOCK_URI = "block://{block}"
_MOST = 100
"""Values of one completion, by the protocol."""
_POLL = 0.1
"""Seconds between looks at a run."""
BlockId = Annotated[str, Field(description="A block's id, as block_...", max_length=80)]


class BlockServer(MCPServer):
    """An MCP server that lists the blocks there are now as its resources, and tells who listens of their changes."""

    def __init__(self, api: ApiCalls) -> None:
        told = BlockChanges(api)
        super().__init__("kvorum", version=version("kvorum"), instructions=ABOUT, log_level="ERROR", subscriptions=told)
        self.api = api

    async def list_resources(self) -> list[Resource]:
        """Each block by its address."""
        return [
            Resource(
                uri=f"block://{block['id']}",
                name=str(block["name"]) or str(block["id"]),
                description=f"{block['tokens']} tokens{', sealed' if block['sealed'] else ''}",
                mime_type="text/plain",
            )
            for block in await self.api.blocks()
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, JsonValue], context: Context | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool. Raises MCPError for one that is not there, as the protocol has it: that is no tool's result."""
        names = [tool.name for tool in await self.list_tools()]
        if name not in names:
            raise MCPError(INVALID_PARAMS, unknown("tool", name, names))
        return await super().call_tool(name, arguments, context)

    async def get_prompt(
        self, name: str, arguments: dict[str, JsonValue] | None = None, context: Context | None = None
    ) -> GetPromptResult | InputRequiredResult:
        """There are none. Raises MCPError."""
        raise MCPError(INVALID_PARAMS, unknown("prompt", name, []))


def mcp_server(api: ApiCalls) -> MCPServer:
    """The server with its tools: ask, decide, run a program, make, append to and read a block."""
    made = BlockServer(api)
    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    writing = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)

    @made.resource(BLOCK_URI, name="block", description="A block's text.", mime_type="text/plain")
    async def block_text(block: str) -> str:
        try:
            found = await api.call("GET", f"/v1/blocks/{quote(block, safe='')}")
        except NotThere as error:
            raise ResourceNotFoundError(str(error)) from error
        except ToolError as error:
            raise ResourceError(str(error)) from error
        return str(found.get("text") or "")

    async def complete(
        ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, _: CompletionContext | None
    ) -> Completion:
        """Ids of blocks that begin as was typed, or whose names do."""
        if not isinstance(ref, ResourceTemplateReference) or ref.uri != BLOCK_URI or argument.name != "block":
            raise MCPError(INVALID_PARAMS, f"Only block of {BLOCK_URI} can be completed.")
        found = [
            str(block["id"])
            for block in await api.blocks()
            if any(str(block[key]).startswith(argument.value) for key in ("id", "name"))
        ]
        return Completion(values=found[:_MOST], total=len(found), has_more=len(found) > _MOST)

    made.completion()(complete)  # type: ignore[no-untyped-call]

    @made.tool(annotations=reading)
    async def ask(
        questions: Annotated[list[str], Field(description="Questions, answered side by side.", max_length=200)],
        text: Annotated[str | None, Field(description="The text that is asked about.")] = None,
        block: BlockId | None = None,
        tokens: Annotated[int, Field(description="The most tokens of an answer.", ge=1)] = 128,
        quote_sentences: Annotated[bool, Field(description="Quote a supporting sentence for each answer.")] = False,
    ) -> dict[str, JsonValue]:
        """Ask many questions about a text or a block at once; returns the answers in order."""
        document: Json = _one_of(text, block, {"block": block})
        asked: dict[str, Json] = {"questions": [*questions], "tokens": tokens, "quote": quote_sentences}
        body: dict[str, Json] = {"model": await _model(api, block), "documents": {"text": document}, **asked}
        return await api.call("POST", "/v1/ask", body)

    @made.tool(annotations=reading)
    async def decide(
        questions: Annotated[
            list[dict[str, JsonValue]],
            Field(
                description="Each {type: predicate|choice|score, name, instructions, choices|levels}.", max_length=400
            ),
        ],
        text: Annotated[str | None, Field(description="The text that is asked about.")] = None,
        block: BlockId | None = None,
    ) -> dict[str, JsonValue]:
        """Answer typed questions about a text or a block by probabilities, all in one pass; nothing is written."""
        state: Json = _one_of(text, block, "")
        view: Json = [{"block": block}] if block else []
        model = await _model(api, block)
        body: dict[str, Json] = {"model": model, "input": state, "view": view, "questions": [*questions]}
        return await api.call("POST", "/v1/decisions", body)

    @made.tool(annotations=writing)
    async def run_program(
        problem: Annotated[str, Field(description="What to solve.")],
        program: Annotated[str, Field(description="A program by its name, such as plain, vote or hogwild.")] = "plain",
        workers: Annotated[int | None, Field(description="How many workers; by default the program's own.")] = None,
        ticks: Annotated[int, Field(description="The most steps that it may take.", ge=1)] = 256,
    ) -> dict[str, JsonValue]:
        """Let a team of workers solve a problem; returns the answer, how it came about, and the run's id."""
        body: dict[str, Json] = {"problem": problem, "program": program, "budget": {"ticks": ticks}}
        if workers is not None:
            body["workers"] = workers
        run = await api.call("POST", "/v1/runs", body)
        path = f"/v1/runs/{run['id']}"
        try:
            while run["status"] in ("queued", "running", "paused"):
                await asyncio.sleep(_POLL)
                run = await api.call("GET", path)
        except asyncio.CancelledError:
            with suppress(ToolError):
                await asyncio.shield(api.call("POST", f"{path}/stop"))
            raise
        if isinstance(error := run.get("error"), dict):
            raise ToolError(str(error["message"]))
        return {name: run[name] for name in ("id", "program", "answer", "outcome", "ticks", "ledger")}

    @made.tool(annotations=writing)
    async def create_block(
        text: Annotated[str, Field(description="What stands in it.")],
        name: Annotated[str, Field(description="What it is called.", max_length=80)] = "",
    ) -> dict[str, JsonValue]:
        """Encode a text into a block of the model's memory, to ask of it later; returns its id and size."""
        return await api.call("POST", "/v1/blocks", {"text": text, "name": name})

    @made.tool(annotations=writing)
    async def append_to_block(
        block: BlockId, text: Annotated[str, Field(description="What is written at its end.")]
    ) -> dict[str, JsonValue]:
        """Write more text at the end of an open block."""
        return await api.call("POST", f"/v1/blocks/{quote(block, safe='')}/append", {"text": text})

    @made.tool(annotations=reading)
    async def read_block(block: BlockId) -> dict[str, JsonValue]:
        """A block's text, size, and whether it can be written to."""
        found = await api.call("GET", f"/v1/blocks/{quote(block, safe='')}")
        return {name: value for name, value in found.items() if name != "ids"}

    @made.tool(annotations=reading)
    async def list_blocks() -> dict[str, JsonValue]:
        """All blocks, the newest first."""
        return await api.call("GET", "/v1/blocks")

    return made


def _one_of(text: str | None, block: str | None, shown: Json) -> Json:
    """The text, or what stands for the block. Raises ToolError for both and for neither."""
    if (text is None) == (block is None):
        raise ToolError("Give a text or a block, one of the two.")
    return shown if text is None else text


async def _model(api: ApiCalls, block: str | None) -> str:
    """The model of a block, or the first that there is."""
    if block is not None:
        told = (await api.call("GET", f"/v1/blocks/{quote(block, safe='')}")).get("model")
        if isinstance(told, str) and told:
            return told
    found = (await api.call("GET", "/v1/models")).get("data")
    first = found[0] if isinstance(found, list) and found else {}
    return str(first["id"]) if isinstance(first, dict) else ""
