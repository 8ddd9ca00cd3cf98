"""pydantic-ai: an agent with a tool and a typed result, by a tool and by a schema, and a streamed answer."""

import asyncio
import sys

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

url, name = sys.argv[1:]
model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=url, api_key="none"))
QUESTION = "Add 3 and 4 with the tool, then add 5 to the result with the tool. What is it?"
SETTINGS = {"temperature": 0, "max_tokens": 150}


class River(BaseModel):
    name: str
    km: int


async def main() -> None:
    asked = []
    agent = Agent(model, model_settings=SETTINGS, retries=2)

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        asked.append((a, b))
        return a + b

    result = await agent.run(QUESTION)
    assert len(asked) >= 2, result
    by_tool = await Agent(model, output_type=River, model_settings=SETTINGS, retries=2).run(
        "A river in France, its km."
    )
    by_schema = await Agent(model, output_type=NativeOutput(River), model_settings=SETTINGS).run("A river in Spain.")
    assert isinstance(by_tool.output, River) and isinstance(by_schema.output, River)
    async with Agent(model, model_settings=SETTINGS).run_stream("Count from one to five in words.") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True)]
    assert len(pieces) > 2
    print("ok:", asked, "|", result.output[:60], "|", by_tool.output, "|", by_schema.output)


asyncio.run(main())
