"""openai-agents over chat completions and Responses: a tool called twice, a typed result, a streamed run."""

import asyncio
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

url, name = sys.argv[1:]
set_tracing_disabled(True)
client = AsyncOpenAI(base_url=url, api_key="none")
model = OpenAIChatCompletionsModel(model=name, openai_client=client)  # or OpenAIResponsesModel
asked = []
QUESTION = "Add 3 and 4 with the tool, then add 5 to the result with the tool. What is it?"


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    asked.append((a, b))
    return a + b


class River(BaseModel):
    name: str
    km: int


async def main() -> None:
    settings = ModelSettings(temperature=0, max_tokens=120)
    agent = Agent(name="a", instructions="Use tools.", model=model, tools=[add], model_settings=settings)
    result = await Runner.run(agent, QUESTION, max_turns=6)
    assert len(asked) >= 2, result
    typed = Agent(name="b", instructions="Be exact.", model=model, output_type=River, model_settings=settings)
    river = (await Runner.run(typed, "A river in France and its length in km.")).final_output
    assert isinstance(river, River)
    plain = Agent(name="c", instructions="Be brief.", model=model, model_settings=settings)
    streamed = Runner.run_streamed(plain, "Count from one to five in words.")
    events = [event.type async for event in streamed.stream_events()]
    assert "raw_response_event" in events and streamed.final_output
    asked.clear()
    responses = agent.clone(model=OpenAIResponsesModel(model=name, openai_client=client))
    again = await Runner.run(responses, QUESTION, max_turns=6)
    assert len(asked) >= 2, again
    print("ok:", asked, "|", result.final_output[:60], "|", river)


asyncio.run(main())
