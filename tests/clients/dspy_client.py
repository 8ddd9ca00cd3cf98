"""DSPy: a signature with typed outputs by JSON, and a loop with a tool."""

import sys

import dspy

url, name = sys.argv[1:]
lm = dspy.LM(f"openai/{name}", api_base=url, api_key="none", temperature=0, max_tokens=200, cache=False)
dspy.configure(lm=lm, adapter=dspy.JSONAdapter())


class Rate(dspy.Signature):
    """Rate how friendly a text is."""

    text: str = dspy.InputField()
    score: float = dspy.OutputField(desc="from 0 to 1")


rated = dspy.Predict(Rate)(text="What a lovely day, thank you!")
assert isinstance(rated.score, float), rated
assert len(lm.history) == 1, "one request is enough"
asked = []


def add(a: int, b: int) -> int:
    """Add two numbers."""
    asked.append((a, b))
    return a + b


agent = dspy.ReAct("question -> answer: int", tools=[add], max_iters=4)
told = agent(question="Add 3 and 4 with the tool, then add 5 to the result with the tool. What is it?")
assert len(asked) >= 2 and isinstance(told.answer, int), (asked, told)
print("ok:", rated.score, "|", asked, told.answer)
