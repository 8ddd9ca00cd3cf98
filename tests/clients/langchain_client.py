"""langchain-openai and LangGraph: an agent with a tool, an object of pydantic, a streamed answer."""

import sys

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

url, name = sys.argv[1:]
model = ChatOpenAI(model=name, base_url=url, api_key="none", temperature=0, max_tokens=120, max_retries=0)
asked = []


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    asked.append((a, b))
    return a + b


class River(BaseModel):
    """A river."""

    name: str
    km: int


agent = create_agent(model, [add])
question = "Add 3 and 4 with the tool, then add 5 to the result with the tool. What is it?"
told = agent.invoke({"messages": [{"role": "user", "content": question}]}, {"recursion_limit": 12})
assert len(asked) >= 2 and told["messages"][-1].type == "ai", told
for method in ("json_schema", "function_calling", "json_mode"):
    asks = "A river in France and its length in km, as JSON with name and km (a whole number)."
    river = model.with_structured_output(River, method=method).invoke(asks)
    assert isinstance(river, River), (method, river)
pieces = [piece.text for piece in model.stream("Count from one to five in words.")]
assert len(pieces) > 3
print("ok:", asked, "|", told["messages"][-1].content[:60], "|", river)
