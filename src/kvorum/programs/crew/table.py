"""The table at which a crew works: what each is told, the board of what was said, and each step as it is done.

A worker has one thread. At its turn it is told what others have put on the board since its last one, by text or as the
tokens that they wrote, and what is asked of it now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from kvorum.harness.crew_files.reading import SAID, SILENT, STOPPED, Crew, CrewStep
from kvorum.harness.protocols.messages import field_quote
from kvorum.harness.protocols.protocol import Act, Played
from kvorum.harness.protocols.votes import Ballot
from kvorum.harness.speaker import Quote, Turn, TurnReply, ask
from kvorum.harness.tools.calling_speaker import CallingSpeaker
from kvorum.jsontypes import Json
from kvorum.runs.run import Run


@dataclass(frozen=True, slots=True)
class Post:
    """What ``worker`` said in ``step``: its ``fields``, and the ``words`` as others read them."""

    step: str
    worker: str
    fields: Mapping[str, Json]
    words: Quote


@dataclass
class Table:
    """A crew at work on a task. ``known``: what each has before it, by worker. ``tokens``: the most of a message."""

    run: Run
    crew: Crew
    speaker: CallingSpeaker
    known: Mapping[str, Sequence[str | Quote]] = field(default_factory=dict)
    tokens: int = 256
    retries: int = 1
    board: list[Post] = field(default_factory=list)
    _seen: dict[str, int] = field(default_factory=dict)

    async def play(self) -> Played:
        """The protocol, step by step, to its end."""
        return await self.crew.protocol.play({name: self._act(name) for name in self.crew.steps})

    def _act(self, name: str) -> Act:
        async def act() -> str:
            return await self.step(name)

        return act

    async def step(self, name: str) -> str:
        """Let those speak whose step it is, and count their votes; how it came out."""
        step = self.crew.steps[name]
        turns = {worker: self.turn(worker, step) for worker in step.who}
        replies: dict[str, TurnReply] = {}

        def read(said: TurnReply) -> dict[str, Json]:
            fields = step.message.read(said)
            replies[said.speaker] = said
            return {key: at.value for key, at in fields.items()}

        again = f"Answer with one JSON object: {step.form}"
        found, failed = await ask(self.speaker, turns, read, again=again, retries=self.retries, deadline=step.deadline)
        for worker in [worker for worker in step.who if worker in found]:
            said = replies[worker]
            at = list(step.message.read(said).values())
            quote = field_quote(said, at[0]) if len(at) == 1 else said.quote()
            self.board.append(Post(name, worker, found[worker], quote))
            self.run.note("post", step=name, worker=worker, fields=found[worker])
        outcome = self._outcome(step, found) if found else SILENT
        if "stopped" in failed.values():
            outcome = STOPPED
        self.run.note("step", name=name, outcome=outcome, missing=dict(failed))
        return outcome

    def _outcome(self, step: CrewStep, found: Mapping[str, Mapping[str, Json]]) -> str:
        if not step.vote:
            return SAID
        ballot = Ballot(step.who, step.choices, step.rule)
        for worker, fields in found.items():
            ballot.cast(worker, _word(fields[step.vote]))
        count = ballot.count()
        self.run.note(
            "vote", outcome=count.outcome, winner=count.winner, votes=dict(count.votes), absent=list(count.absent)
        )
        return count.winner or count.outcome

    # -- what workers are told -----------------------------------------------------------------------------------

    def turn(self, worker: str, step: CrewStep) -> Turn:
        """What a worker is told before it speaks in a step: what is new on the board, and what is asked of it."""
        first = worker not in self._seen
        parts: list[str | Quote] = []
        if first:
            parts += [*self.known.get(worker, ()), f"The task:\n{self.run.task.prompt.strip()}\n"]
        for post in self.board[self._seen.get(worker, 0) :]:
            if post.worker != worker:
                parts += [f"\n{post.worker} ({post.step}): ", post.words, "\n"]
        self._seen[worker] = len(self.board)
        parts.append(f"\n{step.ask}\nAnswer with one JSON object: {step.form}")
        rules = self.rules(worker) if first else None
        return Turn(parts, rules, self.tokens, wants=step.message.name, grammar=step.message.grammar)

    def rules(self, worker: str) -> str:
        """What a worker is told first: the crew, and its own role in it."""
        crew = self.crew
        others = ", ".join(name for name in crew.workers if name != worker)
        about = f"{crew.about} " if crew.about else ""
        team = f"You work in a crew with {others}. " if others else ""
        return self.speaker.rules(worker, f"{about}{team}Your name is {worker}. {crew.workers[worker].role}")

    # -- the answer ----------------------------------------------------------------------------------------------

    def answer(self) -> str | None:
        """What the crew file says is the answer, of what was said; None where nobody has said it."""
        step, key, how = self.crew.answer
        posts = [post for post in self.board if post.step == step]
        if not posts:
            return None
        newest = {post.worker: post.fields[key] for post in posts}
        if how == "median":
            numbers = [value for value in newest.values() if isinstance(value, int | float)]
            return f"{median(numbers):g}"
        if how == "all":
            return json.dumps(newest, ensure_ascii=False)
        if self.crew.steps[step].vote == key:
            ballot = Ballot(list(newest), self.crew.steps[step].choices, "most")
            for worker, value in newest.items():
                ballot.cast(worker, _word(value))
            return ballot.count().winner or None
        return _word(posts[-1].fields[key])


def _word(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)
