#!/usr/bin/env bash
# inspect-ai: a task with a tool and one with answers by a schema, over chat completions, streamed, over Responses, and
# by a team.
set -euo pipefail
url=$1 name=$2
export OPENAI_API_KEY=none

cat > sums.py <<'PYTHON'
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, ResponseSchema
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message, use_tools
from inspect_ai.tool import tool
from inspect_ai.util import json_schema
from pydantic import BaseModel


@tool
def add():
    async def execute(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: The one.
            b: The other.
        """
        return a + b

    return execute


@task
def sums():
    question = "Add 3 and 4 with the tool, then add 5 to the result with the tool. What is it?"
    sample = Sample(input=question, target="12")
    return Task(dataset=[sample], solver=[use_tools(add()), generate()], scorer=includes(), message_limit=12)


class River(BaseModel):
    name: str
    km: int


@task
def rivers():
    form = ResponseSchema(name="river", json_schema=json_schema(River), strict=True)
    samples = [Sample(input=f"A river in {land} and its length in km.", target="km") for land in ("France", "Spain")]
    solver = [system_message("Be brief."), generate()]
    return Task(dataset=samples, solver=solver, scorer=includes(), config=GenerateConfig(response_schema=form))
PYTHON

export KVORUM_BASE_URL=$url KVORUM_API_KEY=none
inspect eval sums.py@sums --model openai-api/kvorum/$name --temperature 0 --max-tokens 150 --log-dir chat
options="--temperature 0 --max-tokens 150 --display plain"
inspect eval sums.py@sums --model openai-api/kvorum/$name -M stream=true $options --log-dir stream
inspect eval sums.py@sums --model openai-api/kvorum/$name -M responses_api=true $options --log-dir responses
inspect eval sums.py@rivers --model openai-api/kvorum/$name $options --log-dir schema
inspect eval sums.py@rivers --model openai-api/kvorum/$name:vote-2 $options --max-tokens 40 --log-dir team

python - <<'PYTHON'
import json

from inspect_ai.log import list_eval_logs, read_eval_log

for folder in ("chat", "stream", "responses", "schema", "team"):
    (found,) = list_eval_logs(folder)
    log = read_eval_log(found)
    assert log.status == "success", (folder, log.error)
    for sample in log.samples:
        assert sample.error is None, (folder, sample.error)
        results = [message for message in sample.messages if message.role == "tool"]
        if folder in ("chat", "stream", "responses"):
            assert len(results) >= 2 and not any(result.error for result in results), (folder, sample.messages)
        elif folder == "schema":
            assert json.loads(sample.output.completion).keys() == {"name", "km"}, sample.output
        print("ok:", folder, len(results), "|", sample.output.completion[:80])
PYTHON
