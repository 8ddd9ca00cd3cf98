"""Role-play of a user who instructs and an assistant who solves (CAMEL, arXiv 2303.17760), with rules that end it.

When it ends is in ``harness/dialogue_rules.py``. Two threads, one task: each hears the other's words as its user's.
"""

from __future__ import annotations

from kvorum.harness.answers import KINDS, Answer, extract
from kvorum.harness.dialogue_rules import DialogueRules
from kvorum.harness.model_speaker import Channel, ModelSpeaker
from kvorum.programs.roleplay.talk import Talk
from kvorum.runs.annotations import PositiveInt
from kvorum.runs.program import program
from kvorum.runs.run import Run

OUTCOMES = ("done", "flipped", "flake", "loop", "deviation", "cap", "stopped")


@program(
    "roleplay",
    "a user instructs, an assistant solves, until the task is done or the talk fails",
    workers=2,
    least_workers=2,
    most_workers=2,
    exchange="dialogue",
)
async def roleplay(
    run: Run,
    *,
    user_role: str = "project lead",
    assistant_role: str = "expert",
    channel: Channel = "text",
    messages: PositiveInt = 40,
    message_tokens: PositiveInt = 400,
    silent: PositiveInt = 3,
    flakes: PositiveInt = 2,
    stale: PositiveInt = 4,
    specify: bool = False,
    answer: Answer = "text",
) -> str | None:
    """The first worker plays the user, the second the assistant. The answer is the assistant's last solution.

    The trace's note "outcome" says how it ended: "done", "flipped" (the assistant instructs), "flake" (it only
    promises), "loop" (nobody says anything new), "deviation" (the user does not instruct), "cap" (too many messages) or
    "stopped" (by the budget or on request).

    Args:
        user_role: Who the user is.
        assistant_role: Who the assistant is.
        messages: The most messages, of both together.
        message_tokens: The most tokens of a message.
        silent: User's turns in a row without an instruction that end the talk.
        flakes: Assistant's turns in a row that only promise that end the talk.
        stale: Turns in a row, of both, without anything new that end the talk.
        specify: The assistant first rewrites the task, as published for vague ideas.
    """
    kind = KINDS[answer]
    user, assistant = run.workers[0].name, run.workers[1].name
    rules = DialogueRules(silent, flakes, stale)
    talk = Talk(user, assistant, user_role, assistant_role, messages, message_tokens, rules, link=run.injections.link)
    speaker = ModelSpeaker(run, channel)
    task = run.task.prompt if not specify else await talk.specify(speaker, run.task.prompt)
    outcome = await talk.play(speaker, f"{task}\n{kind.request}")
    if outcome == "stopped":
        run.outcome = "forced"  # what there is
    run.note("outcome", outcome=outcome, messages=talk.count, solutions=len(talk.solutions), counts=rules.counts)
    if kind.name == "text":
        return talk.solutions[-1] if talk.solutions else None
    return next((found for text in reversed(talk.solutions) if (found := extract(text, kind)) is not None), None)
