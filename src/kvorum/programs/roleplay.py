"""Role-play of a user who instructs and an assistant who solves (CAMEL, arXiv 2303.17760), with rules that end it.

When it ends is in ``harness/dialogue_rules.py``. Two threads, one task: each hears the other's words as its user's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kvorum.harness.answers import Answer, kind_of, read
from kvorum.harness.dialogue_rules import DONE, INSTRUCTION, SOLUTION, DialogueRules, flake
from kvorum.harness.model_speaker import Channel, ModelSpeaker
from kvorum.harness.protocols.protocol import Protocol
from kvorum.harness.speaker import Quote, Speaker, Turn, TurnReply
from kvorum.runs.annotations import PositiveInt
from kvorum.runs.injection import Link, whole
from kvorum.runs.program import program
from kvorum.runs.run import Run


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
    kind = kind_of(run, answer)
    user, assistant = run.workers[0].name, run.workers[1].name
    rules = DialogueRules(silent, flakes, stale)
    talk = Talk(user, assistant, user_role, assistant_role, messages, message_tokens, rules, link=run.injections.link)
    speaker = ModelSpeaker(run, channel)
    task = run.task.prompt if not specify else await talk.specify(speaker, run.task.prompt)
    outcome = await talk.play(speaker, "\n".join(filter(None, (task, kind.request))))
    if outcome == "stopped":
        run.outcome = "cut" if run.state.recording.version > 2 else "forced"  # what there is
    run.note("outcome", outcome=outcome, messages=talk.count, solutions=len(talk.solutions), counts=rules.counts)
    return next((found for text in reversed(talk.solutions) if (found := read(text, kind)) is not None), None)


@dataclass
class Talk:
    """One role-play as it is played by whoever speaks: the model, or scripts that test it without one.

    ``solutions``: what the assistant gave, its format left out.
    """

    user: str
    assistant: str
    user_role: str = "project lead"
    assistant_role: str = "expert"
    messages: int = 40
    tokens: int = 400
    ends: DialogueRules = field(default_factory=DialogueRules)
    count: int = 0
    solutions: list[str] = field(default_factory=list)
    link: Callable[[str, str, int], Link] = whole
    sent: dict[str, list[Quote]] = field(default_factory=dict)

    async def play(self, speaker: Speaker, task: str) -> str:
        """Take turns until a rule ends it; the outcome."""
        said = TurnReply(f"Give the first instruction. Begin with {INSTRUCTION}")
        told: dict[str, str | None] = {self.user: self.user_rules(task), self.assistant: self.assistant_rules(task)}

        async def turn(name: str) -> bool:
            nonlocal said
            heard = self.heard(said, name) if said.speaker else said.text
            said = await self._say(speaker, name, heard, told[name])
            told[name] = None
            return said.end not in ("stopped", "left")

        async def instruct() -> str:
            return (self.ends.user(said.text) or "instructs") if await turn(self.user) else "stopped"

        async def solve() -> str:
            if not await turn(self.assistant):
                return "stopped"
            outcome = self.ends.assistant(said.text)
            if outcome != "flipped" and not flake(said.text) and (solution := solution_of(said.text)):
                self.solutions.append(solution)
            return outcome or "solves"

        talk = Protocol(
            {"instruct": {"instructs": "solve"}, "solve": {"solves": "instruct"}}, "instruct", self.messages
        )
        return (await talk.play({"instruct": instruct, "solve": solve})).end

    def heard(self, said: TurnReply, reader: str) -> Quote:
        """What comes to the reader for it; messages are counted from 1 for each speaker."""
        sent = self.sent.setdefault(said.speaker, [])
        sent.append(_quote(said))
        link = self.link(said.speaker, reader, len(sent))
        if link.text is not None:
            return Quote(link.text, None, said.speaker)
        arrived = link.lag is not None and link.lag < len(sent)
        return sent[-1 - (link.lag or 0)] if arrived else Quote("(no words)", None, said.speaker)

    async def _say(self, speaker: Speaker, name: str, heard: Quote | str, rules: str | None) -> TurnReply:
        wants = "instruction" if name == self.user else "solution"
        said = await speaker({name: Turn([heard], rules, self.tokens, wants=wants)})
        self.count += 1
        return said[name]

    async def specify(self, speaker: Speaker, idea: str) -> str:
        """The idea made concrete; the idea itself if nothing comes of it."""
        words = f"Make this task more specific, in at most 50 words, and reply with the task only.\n\n{idea}"
        turn = Turn([words], f"You write clear tasks for a {self.assistant_role}.", self.tokens, wants="task")
        return (await speaker({self.assistant: turn}))[self.assistant].text.strip() or idea

    def user_rules(self, task: str) -> str:
        """What the user is told first."""
        return f"""You are a {self.user_role} and I am a {self.assistant_role}. Never swap roles: you always \
instruct me, and I solve. We work together on this task:
{task}
Give me one instruction at a time, in this form and nothing else:
{INSTRUCTION} what I should do next
Input: what I need for it, or None
I reply with a solution. Go on until the task is complete. Then, and only then, reply with the single word {DONE}"""

    def assistant_rules(self, task: str) -> str:
        """What the assistant is told first."""
        return f"""You are a {self.assistant_role} and I am a {self.user_role}. Never swap roles: I always \
instruct you, and you never instruct or question me. We work together on this task:
{task}
I give you one instruction at a time. Solve it now instead of saying that you will, and reply in this form:
{SOLUTION} your solution, complete and specific
Next request."""


def _quote(said: TurnReply) -> Quote:
    """All that was said. An empty message is heard as such; a reader needs some words."""
    return said.quote() if said.text.strip() else Quote("(no words)", None, said.speaker)


def solution_of(text: str) -> str:
    """What stands behind the mark of a solution, without the request for more; without a mark, the text."""
    body = text.split(SOLUTION, 1)[-1]
    return body.rsplit("Next request", 1)[0].strip()
