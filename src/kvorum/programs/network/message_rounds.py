"""The synchronous rounds of AgentsNet: what agents are told, who gets which message, how answers are read.

Rounds, their order and what each turn says are those of the published code; the wording is our own. An agent keeps one
thread throughout. Messages are read leniently (``json_objects.py``): a key that is no neighbour costs that message
alone.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from kvorum.harness.json_objects import json_objects
from kvorum.harness.protocols.protocol import Protocol
from kvorum.harness.speaker import Malformed, Quote, Speaker, SpeakerScript, Turn, TurnReply, ask
from kvorum.runs.injection import Link, whole
from kvorum.tasks.agentsnet import MARK, Problem, read_answer, solution

if TYPE_CHECKING:
    import networkx as nx

T = TypeVar("T")
Inbox = Sequence[tuple[str, Quote]]
"""(sender, message), as they arrived."""


@dataclass
class MessageRounds:
    """One problem on one graph, played by whoever speaks."""

    graph: nx.Graph
    problem: Problem
    rounds: int
    think: bool = True
    extra: str = ""
    message_tokens: int = 512
    answer_tokens: int = 512
    retries: int = 1
    link: Callable[[str, str, int], Link] = whole
    note: Callable[..., None] = lambda kind, **data: None
    malformed: Counter[str] = field(default_factory=Counter)
    """How often what went wrong: complaints after the last retry, and parts of messages that nobody gets."""

    number: int = 0
    inboxes: dict[str, Inbox] = field(default_factory=dict)
    mail: dict[int, list[tuple[str, str, Quote]]] = field(default_factory=dict)
    """What is under way: (to, sender, message) by the round in which it arrives."""

    async def play(self, speaker: Speaker) -> dict[str, str | None]:
        """All rounds and the question; what each node answered, None where nothing can be read."""
        answers: dict[str, str] = {}

        async def exchange() -> str:
            await self.exchange(speaker)
            return "over" if self.number == self.rounds else "on"

        async def question() -> str:
            turns = {node: self.question(node, self.inboxes[node]) for node in self.graph}
            answers.update(
                await self._ask(
                    speaker, turns, self.read_answer, f"Please answer again: {MARK} and then one of the valid answers."
                )
            )
            return "answered"

        steps = {"exchange": {"on": "exchange", "over": "question"}, "question": {}}
        await Protocol(steps, "exchange", self.rounds + 1).play({"exchange": exchange, "question": question})
        return {node: answers.get(node) for node in self.graph}

    async def exchange(self, speaker: Speaker) -> None:
        """One round: all write at the same time, and what arrives now is in their inboxes."""
        self.number += 1
        left = self.rounds - self.number + 1
        first = self.number == 1
        turns = {node: self.first(node) if first else self.round(node, self.inboxes[node], left) for node in self.graph}
        again = "Please send your messages again, as one JSON object."
        sent = await self._ask(speaker, turns, self.read_messages, again)
        for node, messages in sent.items():
            for neighbor, quote in messages.items():
                link = self.link(node, neighbor, self.number)
                quote = quote if link.text is None else Quote(link.text, None, node)
                if link.lag is not None:
                    self.mail.setdefault(self.number + link.lag, []).append((neighbor, node, quote))
        arrived = self.mail.pop(self.number, [])
        self.inboxes = {node: [(sender, quote) for to, sender, quote in arrived if to == node] for node in self.graph}
        texts = {node: {to: quote.text for to, quote in messages.items()} for node, messages in sent.items()}
        got = {node: [(name, quote.text) for name, quote in inbox] for node, inbox in self.inboxes.items()}
        self.note("mail", n=self.number, sent=texts, got=got)

    async def _ask(
        self, speaker: Speaker, turns: Mapping[str, Turn], read: Callable[[TurnReply], T], again: str
    ) -> dict[str, T]:
        found, failed = await ask(speaker, turns, read, again=again, retries=self.retries)
        self.malformed.update(failed.values())
        return found

    def read_messages(self, said: TurnReply) -> dict[str, Quote]:
        """What ``said`` sends to which neighbour: the last object that names one, else the last object."""
        found = json_objects(said.text)
        if not found:
            raise Malformed("No JSON object could be read.")
        neighbors = set(self.graph[said.speaker])
        fields = next((fields for fields in reversed(found) if neighbors & set(fields)), found[-1])
        messages, lost = {}, Counter[str]()
        for name, message in fields.items():
            if name not in neighbors:
                lost["key that is no neighbor"] += 1
            elif not isinstance(message.value, str) or not message.value.strip():
                lost["message that is no text"] += 1
            else:
                messages[name] = replace(said.quote(message.lo, message.hi), text=message.value.strip())
        if fields and not messages:  # an empty object is silence; this one meant to say something
            raise Malformed("No key of the JSON object is one of your neighbors with a text.")
        self.malformed.update(lost)
        return messages

    def read_answer(self, said: TurnReply) -> str:
        """The answer in ``said``."""
        answer = read_answer(said.text, self.problem.options(self.graph, said.speaker))
        if answer is None:
            raise Malformed("No valid answer could be read.")
        return answer

    # -- what workers are told -----------------------------------------------------------------------------------

    def rules(self) -> str:
        """What everyone is told; the same words for all, so that they are encoded once."""
        think = ", and think step by step before you do" if self.think else ""
        extra = f"\n{self.extra}" if self.extra else ""
        return f"""You are one of {len(self.graph)} agents in a network. Everyone has a name of its own. \
{self.problem.goal}
You can talk only to your neighbors; news of anyone else must be passed on by those in between. Agents talk in \
{self.rounds} rounds. In each round all agents write at the same time, and what they write arrives in the next \
round. You decide what to tell or ask your neighbors{think}.
Write your messages as one JSON object from neighbor to text. Leave out a neighbor to whom you have nothing to say.
After {self.rounds} rounds you must {self.problem.request(self.graph)}{extra}"""

    def first(self, node: str) -> Turn:
        """The first turn. The form has the node's own neighbours: small models copy what they are shown."""
        form = json.dumps({name: f"what {name} will read" for name in self.graph[node]}, ensure_ascii=False)
        known = f"Your name is {node}. Your neighbors: {', '.join(self.graph[node])}."
        opening = f"{known} {self.ask_messages()} Its form:\n{form}"
        return Turn([opening], self.rules(), self.message_tokens, wants="messages")

    def ask_messages(self) -> str:
        """The words by which a worker is asked for its messages of the next round."""
        return f"{'Think step by step, then write' if self.think else 'Write'} your messages as one JSON object."

    def inbox(self, node: str, inbox: Inbox, heading: str) -> list[str | Quote]:
        """What arrived, and who was silent."""
        parts: list[str | Quote] = [heading]
        for sender, quote in inbox:
            parts += [f"\n\nMessage from {sender}:\n", quote]
        silent = [name for name in self.graph[node] if name not in dict(inbox)]
        return [*parts, f"\n\nNo message came from: {', '.join(silent)}." if silent else ""]

    def round(self, node: str, inbox: Inbox, left: int) -> Turn:
        """A round's turn; ``left`` exchanges are still to come, this one included."""
        last = " These are the last messages that they will get from you." if left == 1 else ""
        end = f"\n\n{self.ask_messages()} Rounds left: {left}. Your neighbors: {', '.join(self.graph[node])}.{last}"
        parts = self.inbox(node, inbox, "The messages of this round:")
        return Turn([*parts, end], None, self.message_tokens, wants="messages")

    def question(self, node: str, inbox: Inbox) -> Turn:
        """The last turn."""
        options = ", ".join(self.problem.options(self.graph, node))
        think = "Think step by step, then answer. " if self.think else ""
        how = f"End with '{MARK}' followed by your answer, which must be one of: {options}"
        end = f"\n\n{think}{self.problem.question} {how}"
        parts = self.inbox(node, inbox, "The rounds are over. The last messages:")
        return Turn([*parts, end], None, self.answer_tokens, wants="answer")


# -- scripts that speak for all workers; of a worker they use only what it knows: its neighbours and what it was told


def flood(graph: nx.Graph, problem: Problem) -> SpeakerScript:
    """The ceiling that rounds and topology allow: everyone tells all neighbours all edges it knows of, and in the end
    solves what it knows by one agreed rule."""
    import networkx as nx

    known: dict[str, set[tuple[str, str]]] = {node: {(node, other) for other in graph[node]} for node in graph}

    def say(name: str, turn: Turn) -> str:
        for part in turn.parts:
            if isinstance(part, Quote):
                known[name] |= {(a, b) for a, b in json.loads(part.text)}
        if turn.wants == "answer":
            return f"{MARK} {solution(nx.Graph(known[name]), problem.name)[name]}"
        return json.dumps({other: json.dumps(sorted(known[name])) for other in graph[name]})

    return say


def chance(graph: nx.Graph, problem: Problem, seed: int) -> SpeakerScript:
    """The floor of blind play: nobody sends anything and everyone answers uniformly at random."""
    draw = random.Random(seed)

    def say(name: str, turn: Turn) -> str:
        return f"{MARK} {draw.choice(problem.options(graph, name))}" if turn.wants == "answer" else "{}"

    return say
