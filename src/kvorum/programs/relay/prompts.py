"""What the workers of a relay are told. Our words for the roles of LatentMAS; the same words whatever the channel.

The question comes first in every prompt, so that workers of one stage share its encoding.
"""

from __future__ import annotations

from collections.abc import Sequence

_SEQUENCE = {
    "planner": "You are the planner. Write a short plan, as a list, of how to solve the question. Do not solve it.",
    "critic": "You are the critic. Restate the plan of those before you and say what is wrong or missing in it.",
    "refiner": "You are the refiner. Write a better plan from the plan and the criticism of those before you.",
}
_EXPERTS = {
    "mathematician": "You are a mathematician. Solve the question with the tools of your field.",
    "scientist": "You are a natural scientist. Solve the question with the tools of your field.",
    "programmer": "You are a programmer. Solve the question with the tools of your field.",
}
_LAST = {
    "sequential": "You are the judge. Solve the question and answer it.",
    "hierarchical": "You sum up the work of several experts. Solve the question and answer it.",
}
_ADVICE = "What those before you thought is for reference; ignore what does not help. Think step by step. "
BRIDGE = "\n\nIn words: "
"""Fed between latent steps and the text that a worker writes after them."""


def roles(form: str, count: int) -> list[str]:
    """The roles of ``count`` workers; the last one answers. In larger teams the roles between take turns."""
    if form == "hierarchical":
        names = list(_EXPERTS)
        return [names[at % len(names)] for at in range(count - 1)] + ["summariser"]
    return [("planner" if at == 0 else "critic" if at % 2 else "refiner") for at in range(count - 1)] + ["judge"]


def thinker(role: str, question: str, private: str, said: Sequence[tuple[str, str]]) -> str:
    """The prompt of a worker that hands on. ``said``: (role, text) of those before it, where text is handed over."""
    return _prompt(question, private, said, (_SEQUENCE | _EXPERTS)[role])


def answerer(form: str, question: str, private: str, said: Sequence[tuple[str, str]], request: str) -> str:
    """The prompt of the last worker."""
    return _prompt(question, private, said, f"{_LAST[form]} {_ADVICE}{request}".rstrip())


def _prompt(question: str, private: str, said: Sequence[tuple[str, str]], request: str) -> str:
    quotes = [f"The {role} says: {text.strip()}" for role, text in said]
    secret = f"Only you know this: {private}" if private else ""
    return "\n\n".join(filter(None, [question, *quotes, secret, request]))
