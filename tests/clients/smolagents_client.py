"""smolagents: an agent that calls tools, one that writes code, with and without a form, and a streamed answer."""

import sys

from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

url, name = sys.argv[1:]
model = OpenAIModel(model_id=name, api_base=url, api_key="none", temperature=0, max_tokens=200)
asked = []


@tool
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The one.
        b: The other.
    """
    asked.append((a, b))
    return a + b


question = "Add 3 and 4 with the tool, then add 5 to the result with the tool. What is it?"
agent = ToolCallingAgent(tools=[add], model=model, max_steps=5, verbosity_level=0)
by_tools = agent.run(question)
assert len(asked) >= 2, agent.memory.steps
wrong = [str(step.error) for step in agent.memory.steps if getattr(step, "error", None)]
assert not [error for error in wrong if "pars" in error.lower()], wrong

answers = []
for form in (True, False):
    asked.clear()
    coder = CodeAgent(tools=[add], model=model, max_steps=4, verbosity_level=0, use_structured_outputs_internally=form)
    answers.append(coder.run(question))
    assert asked, coder.memory.steps

streamer = ToolCallingAgent(tools=[add], model=model, max_steps=2, verbosity_level=0, stream_outputs=True)
kinds = {type(event).__name__ for event in streamer.run("What is 17 + 25?", stream=True)}
assert {"ChatMessageStreamDelta", "FinalAnswerStep"} <= kinds, kinds
print("ok:", str(by_tools)[:60], "|", [str(answer)[:60] for answer in answers], "|", sorted(kinds))
