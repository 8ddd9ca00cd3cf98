"""instructor: an object of pydantic by a tool, by a schema and by JSON, and one that is streamed as it grows."""

import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel

url, name = sys.argv[1:]


class River(BaseModel):
    name: str
    km: int


for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON):
    client = instructor.from_openai(OpenAI(base_url=url, api_key="none"), mode=mode)
    river = client.create(
        model=name,
        response_model=River,
        messages=[{"role": "user", "content": "A river in France and its length in km."}],
        temperature=0,
        max_tokens=100,
        max_retries=2,
    )
    assert isinstance(river, River), (mode, river)
client = instructor.from_openai(OpenAI(base_url=url, api_key="none"), mode=instructor.Mode.TOOLS)
parts = client.create_partial(
    model=name,
    response_model=River,
    messages=[{"role": "user", "content": "A river in Spain and its length in km."}],
    temperature=0,
    max_tokens=100,
)
seen = [part.model_dump() for part in parts]
assert len(seen) > 3 and isinstance(seen[-1]["km"], int), seen
print("ok:", river, "|", seen[-1])
