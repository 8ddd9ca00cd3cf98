"""openai-agents over chat completions: an agent with a tool, a typed result, a streamed run."""

import asyncio
import sys

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel

url, name = sys.argv[1:]
set_tracing_disabled(True)
model = OpenAIChatCompletionsModel(model=name, openai_client=AsyncOpenAI(base_url=url, api_key="none"))
asked = []


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    asked.append(city)
    return f"{city}: rain, 9 degrees"


class River(BaseModel):
    name: str
    km: int


async def main() -> None:
    settings = ModelSettings(temperature=0, max_tokens=120)
    agent = Agent(name="a", instructions="Use tools.", model=model, tools=[weather], model_settings=settings)
    result = await Runner.run(agent, "What is the weather in Rome? Use the tool, then answer.", max_turns=6)
    assert asked and result.final_output, result
    typed = Agent(name="b", instructions="Be exact.", model=model, output_type=River, model_settings=settings)
    river = (await Runner.run(typed, "A river in France and its length in km.")).final_output
    assert isinstance(river, River)
    plain = Agent(name="c", instructions="Be brief.", model=model, model_settings=settings)
    streamed = Runner.run_streamed(plain, "Count from one to five in words.")
    events = [event.type async for event in streamed.stream_events()]
    assert "raw_response_event" in events and streamed.final_output
    print("ok:", asked, "|", result.final_output[:60], "|", river)


asyncio.run(main())
