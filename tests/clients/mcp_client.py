"""The MCP SDK: a block made and read as a resource, questions about it, a team that runs."""

import asyncio
import sys

from mcp.client.client import Client

url, name = sys.argv[1:]


async def main() -> None:
    async with Client(url.removesuffix("/v1") + "/mcp") as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        made = await client.call_tool("create_block", {"text": "The pump stands still. ", "name": "notes"})
        block = made.structured_content["id"]
        await client.call_tool("append_to_block", {"block": block, "text": "The floor is wet."})
        asked = {"block": block, "questions": ["What stands still?", "Is the floor dry?"], "tokens": 12}
        found = await client.call_tool("ask", asked)
        print("ok:", [answer["text"] for answer in found.structured_content["answers"]])
        assert {"ask", "decide", "run_program"} <= tools
        assert len(found.structured_content["answers"]) == 2, found
        (content,) = (await client.read_resource(f"block://{block}")).contents
        assert content.text == "The pump stands still. The floor is wet.", content
        question = {"type": "predicate", "instructions": "Does the pump run?"}
        decided = await client.call_tool("decide", {"block": block, "questions": [question]})
        probability = decided.structured_content["answers"][0]["probability"]
        assert 0 <= probability <= 1, decided
        assert name == "tiny" or probability < 0.5, decided
        run = await client.call_tool(
            "run_program", {"problem": "What is 17 * 23?", "program": "vote", "workers": 2, "ticks": 24}
        )
        assert not run.is_error, run


asyncio.run(main())
