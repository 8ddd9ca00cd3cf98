"""CrewAI: a crew of two with a tool, an object of pydantic, a streamed crew."""

import os
import sys

os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false", "OTEL_SDK_DISABLED": "true"}

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool
from pydantic import BaseModel

url, name = sys.argv[1:]
llm = LLM(model=name, base_url=url, api_key="none", custom_openai=True, temperature=0, max_tokens=200)
asked = []


@tool("add")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    asked.append((a, b))
    return a + b


class Bill(BaseModel):
    thing: str
    total: int


adder = Agent(role="Calculator", goal="Add", backstory="Adds with the tool.", llm=llm, tools=[add], max_iter=5)
clerk = Agent(role="Clerk", goal="Write bills", backstory="Is exact.", llm=llm, max_iter=3)
look, more = (
    Task(description=f"Add {sums} with the tool and say the sum.", expected_output="The sum.", agent=adder)
    for sums in ("3 and 4", "7 and 5")
)
bill = Task(
    description="Write the bill of one tea that costs what was added up.",
    expected_output="The bill as JSON.",
    agent=clerk,
    context=[more],
    output_pydantic=Bill,
)
told = Crew(agents=[adder, clerk], tasks=[look, more, bill]).kickoff()
assert len(asked) >= 2, (asked, told)
assert isinstance(told.pydantic, Bill), told

counter = Agent(role="Teacher", goal="Count", backstory="Is brief.", llm=llm, max_iter=2)
count = Task(description="Count from one to five in words.", expected_output="Five words.", agent=counter)
streaming = Crew(agents=[counter], tasks=[count], stream=True).kickoff()
pieces = [chunk.content for chunk in streaming]
assert len(pieces) > 3 and streaming.result.raw, pieces
print("ok:", asked, "|", told.tasks_output[0].raw[:60], "|", told.pydantic, "|", streaming.result.raw[:60])
