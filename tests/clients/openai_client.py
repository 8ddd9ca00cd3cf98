"""openai: a loop of two calls of a tool, an object of pydantic, a streamed answer."""

import json
import sys

from openai import OpenAI
from pydantic import BaseModel

url, model = sys.argv[1:]
client = OpenAI(base_url=url, api_key="none", max_retries=0)
PRICES = {"tea": 3, "cake": 4}
TOOL = {
    "type": "function",
    "function": {
        "name": "price",
        "description": "The price of something",
        "parameters": {"type": "object", "properties": {"thing": {"enum": list(PRICES)}}, "required": ["thing"]},
        "strict": True,
    },
}


class River(BaseModel):
    name: str
    km: int


messages = [{"role": "user", "content": "What do tea and cake cost together? Look each price up first."}]
calls = 0
for _ in PRICES:
    choice = {"type": "function", "function": {"name": "price"}}
    reply = client.chat.completions.create(
        model=model, messages=messages, tools=[TOOL], tool_choice=choice, temperature=0, max_tokens=100
    )
    (call,) = reply.choices[0].message.tool_calls
    messages.append(reply.choices[0].message.model_dump(exclude_none=True))
    price = PRICES[json.loads(call.function.arguments)["thing"]]
    messages.append({"role": "tool", "tool_call_id": call.id, "content": str(price)})
    calls += 1
end = client.chat.completions.create(
    model=model, messages=messages, tools=[TOOL], tool_choice="none", temperature=0, max_tokens=60
)
assert calls == 2 and end.choices[0].message.content, end
assert end.usage.prompt_tokens_details.cached_tokens > 0, end.usage

parsed = client.chat.completions.parse(
    model=model,
    messages=[{"role": "user", "content": "Name a river in France and its length in km."}],
    response_format=River,
    temperature=0,
    max_tokens=60,
)
assert isinstance(parsed.choices[0].message.parsed, River), parsed

stream = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Count from one to five in words."}],
    stream=True,
    stream_options={"include_usage": True},
    temperature=0,
    max_tokens=40,
)
chunks = list(stream)
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert "two" in text.lower(), text
assert chunks[-1].usage.completion_tokens > 3
print("ok:", parsed.choices[0].message.parsed, "|", end.choices[0].message.content[:60], "|", text[:40])
