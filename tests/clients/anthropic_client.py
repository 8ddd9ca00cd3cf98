"""anthropic: the library's own loop with a tool of two calls, an object of pydantic, a streamed answer."""

import sys

from anthropic import Anthropic, beta_tool
from pydantic import BaseModel, Field

url, name = sys.argv[1:]
client = Anthropic(base_url=url.removesuffix("/v1"), api_key="none", max_retries=0)
asked = []


@beta_tool
def add(a: int, b: int) -> str:
    """Add two numbers.

    Args:
        a: The one.
        b: The other.
    """
    asked.append((a, b))
    return str(a + b)


class River(BaseModel):
    name: str = Field(max_length=20)
    km: int = Field(ge=0, le=9999)


question = "Add 3 and 4 with the tool, then add 5 to the result with the tool. What is it?"
runner = client.beta.messages.tool_runner(
    model=name,
    max_tokens=150,
    tools=[add],
    messages=[{"role": "user", "content": question}],
    max_iterations=5,
    extra_body={"temperature": 0},
)
for message in runner:
    last = message
assert len(asked) >= 2 and last.stop_reason in ("end_turn", "tool_use"), (asked, last)

river = client.messages.parse(
    model=name,
    max_tokens=80,
    messages=[{"role": "user", "content": "Name a river in France and its length in km."}],
    output_format=River,
    extra_body={"temperature": 0},
).parsed_output
assert isinstance(river, River), river

told = [{"role": "user", "content": "Count from one to five in words."}]
with client.messages.stream(model=name, max_tokens=40, messages=told, extra_body={"temperature": 0}) as stream:
    pieces = list(stream.text_stream)
assert len(pieces) > 3, pieces
assert "two" in "".join(pieces).lower(), pieces
print("ok:", asked, "|", last.content[0].to_dict(), "|", river, "|", "".join(pieces)[:40])
