"""openai, chat and Responses: a loop of two calls of a tool, an object of pydantic, a streamed answer."""

import json
import sys

from openai import OpenAI
from pydantic import BaseModel, Field

url, name = sys.argv[1:]
client = OpenAI(base_url=url, api_key="none", max_retries=0)
PRICES = {"tea": 3, "cake": 4}
SCHEMA = {
    "type": "object",
    "properties": {"thing": {"enum": list(PRICES)}},
    "required": ["thing"],
    "additionalProperties": False,
}
ABOUT = {"name": "price", "description": "The price of something", "parameters": SCHEMA, "strict": True}
TOOL = {"type": "function", "function": ABOUT}
QUESTION = "What do tea and cake cost together? Look each price up first."
COUNT = "Count from one to five in words."


class River(BaseModel):
    name: str = Field(max_length=20)
    km: int = Field(ge=0, le=9999)


messages = [{"role": "user", "content": QUESTION}]
for _ in PRICES:
    choice = {"type": "function", "function": {"name": "price"}}
    reply = client.chat.completions.create(
        model=name, messages=messages, tools=[TOOL], tool_choice=choice, temperature=0, max_tokens=100
    )
    (call,) = reply.choices[0].message.tool_calls
    messages.append(reply.choices[0].message.model_dump(exclude_none=True))
    price = PRICES[json.loads(call.function.arguments)["thing"]]
    messages.append({"role": "tool", "tool_call_id": call.id, "content": str(price)})
end = client.chat.completions.create(
    model=name, messages=messages, tools=[TOOL], tool_choice="none", temperature=0, max_tokens=60
)
assert end.choices[0].message.content, end
assert end.usage.prompt_tokens_details.cached_tokens > 0, end.usage

parsed = client.chat.completions.parse(
    model=name,
    messages=[{"role": "user", "content": "Name a river in France and its length in km."}],
    response_format=River,
    temperature=0,
    max_tokens=200,
)
river = parsed.choices[0].message.parsed
assert isinstance(river, River), parsed

stream = client.chat.completions.create(
    model=name,
    messages=[{"role": "user", "content": COUNT}],
    stream=True,
    stream_options={"include_usage": True},
    temperature=0,
    max_tokens=40,
)
chunks = list(stream)
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert name == "tiny" or "two" in text.lower(), text
assert chunks[-1].usage.completion_tokens > 3

reply = client.responses.create(
    model=name,
    input=QUESTION,
    tools=[{"type": "function", **ABOUT}],
    tool_choice={"type": "function", "name": "price"},
    temperature=0,
    max_output_tokens=200,
)
for choice in ({"type": "function", "name": "price"}, "none"):
    (call,) = (item for item in reply.output if item.type == "function_call")
    price = PRICES[json.loads(call.arguments)["thing"]]
    reply = client.responses.create(
        model=name,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": str(price)}],
        previous_response_id=reply.id,
        tools=[{"type": "function", **ABOUT}],
        tool_choice=choice,
        temperature=0,
        max_output_tokens=200,
    )
    assert reply.usage.input_tokens_details.cached_tokens > 0, reply.usage
assert reply.output_text, reply
parsed = client.responses.parse(
    model=name, input="Name a river in Spain and its length in km.", text_format=River, temperature=0
)
assert isinstance(parsed.output_parsed, River), parsed
with client.responses.stream(model=name, input=COUNT, temperature=0, max_output_tokens=40) as events:
    told = list(events)
deltas = [event.delta for event in told if event.type == "response.output_text.delta"]
assert len(deltas) > 3, deltas
assert told[-1].type in ("response.completed", "response.incomplete"), told[-1]  # a model that counts on is cut
assert "".join(deltas) == told[-1].response.output_text
print("ok:", river, "|", end.choices[0].message.content[:60], "|", text[:40], "|", reply.output_text[:60])
