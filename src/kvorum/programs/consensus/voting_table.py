"""A table at which the valid-consensus game is played: what agents are told, how their words are read, and scripts.

As published, every call is a fresh thread: an agent remembers its initial value and a private note. A round's board of
proposals is the same for all and stands before everything that is an agent's own, so that it is encoded once. The
paper shows the last round and one note; the released code three rounds, with less of each reason, and five notes.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from kvorum.harness.json_objects import ValueAt, json_objects
from kvorum.harness.protocols.votes import Ballot, needed
from kvorum.harness.speaker import Malformed, Quote, Speaker, SpeakerScript, Turn, TurnReply, ask
from kvorum.runs.injection import WHOLE, Link, whole
from kvorum.tasks.consensus import LIES, RULES, Game

T = TypeVar("T")
RULE = "two thirds"
"""Of the votes to stop, as in paper and code (whose prompts say 66 %)."""
VOTES = ("stop", "continue", "abstain")
_ROUNDS, _OLD_REASON, _NOTES = 3, 50, 5
"""What agents remember in the released code: rounds, characters of each reason in them, private notes."""


@dataclass
class VotingTable:
    """The game as it is played: what agents are told and how their words are read."""

    game: Game
    warned: bool = True
    extra: str = ""
    calls: tuple[tuple[int, float], tuple[int, float]] = ((300, 0.5), (200, 0.3))
    reason_chars: int = 200
    retries: int = 3
    number: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    released: bool = False
    """Whether agents remember what they do in the released code, and not in the paper."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, Quote] = field(default_factory=dict)
    link: Callable[[str, str, int], Link] = whole
    boards: list[dict[str, tuple[int | None, Quote]]] = field(default_factory=list)
    """What each agent proposed and why, round by round."""
    changed: dict[str, dict[str, int | None]] = field(default_factory=dict)
    """What a reader saw of an agent in this round, where that is not what the agent proposed."""

    async def round(self, speaker: Speaker) -> dict[str, str]:
        """The next round: everyone proposes, all proposals are shown, everyone votes; the votes."""
        game = self.game
        self.number += 1
        proposals = await self._ask(speaker, 0, self.read_proposal)
        self.reasons = {name: reason for name, (_, reason) in proposals.items()}
        game.propose({name: value for name, (value, _) in proposals.items()})
        self.boards.append({name: (value, self.reasons.get(name, Quote(""))) for name, value in game.board.items()})
        self.changed = {}
        return await self._ask(speaker, 1, self.read_vote)

    @property
    def needed(self) -> int:
        """Votes to stop that end the game."""
        return needed(RULE, len(self.game.voters()))

    def stops(self, votes: Mapping[str, str], quorum: str = "") -> bool:
        """Whether a round's votes end the game under a quorum ("": the game's)."""
        ballot = Ballot(self.game.voters(quorum), VOTES, RULE)
        for name, vote in votes.items():
            ballot.cast(name, vote)
        return ballot.count().winner == VOTES[0]

    async def _ask(self, speaker: Speaker, call: int, read: Callable[[TurnReply], T]) -> dict[str, T]:
        again = "Please answer again with one JSON object as described."
        turns = {name: self.turn(name, call) for name in self.game.names}
        found, failed = await ask(speaker, turns, read, again=again, retries=self.retries)
        self.malformed.update(failed.values())
        return found

    def seen(self, reader: str, sender: str, number: int) -> tuple[int | None, Quote]:
        """The sender's proposal of a round and its reason, as they got to the reader."""
        made = self.boards[number - 1][sender]
        link = WHOLE if reader == sender else self.link(sender, reader, number)
        if link.text is not None:
            sent = int(link.text) if link.text.lstrip("-").isdecimal() else None, Quote("")
        elif link.lag is None or link.lag >= number:
            sent = None, Quote("")
        else:
            sent = self.boards[number - 1 - link.lag][sender]
        if sent[0] != made[0] and number == len(self.boards):
            self.changed.setdefault(reader, {})[sender] = sent[0]
        return sent

    def board(self, reader: str, number: int) -> list[str | Quote]:
        """A round's proposals for a reader, with less of the reasons where the round is over."""
        over = self.released and number < self.number
        parts: list[str | Quote] = []
        for other in self.game.names:
            value, reason = self.seen(reader, other, number)
            parts.append(f"\n- {other}: {'no proposal' if value is None else value}. ")
            parts.append(Quote(reason.text[:_OLD_REASON]) if over else reason)
        return parts

    # -- reading -------------------------------------------------------------------------------------------------

    def read_proposal(self, said: TurnReply) -> tuple[int | None, Quote]:
        """A value and the public reason for it; None is a Byzantine agent that abstains."""
        fields = _last(said.text, "value")
        value, reason = fields["value"].value, fields.get("public_reasoning")
        if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
            value = int(value)
        liar = said.speaker in self.game.byzantine
        if liar and isinstance(value, str) and value.strip().lower() == "abstain":
            value = None
        elif isinstance(value, bool) or not isinstance(value, int) or not self.game.low <= value <= self.game.high:
            raise Malformed(f"The value must be an integer from {self.game.low} to {self.game.high}.")
        note = fields.get("internal_strategy")
        text = note.value.strip() if note is not None and isinstance(note.value, str) else ""
        if self.released:
            kept = self.notes.get(said.speaker, []) + ([f"round {self.number}: {text[:400]}"] if text else [])
            self.notes[said.speaker] = kept[-_NOTES:]
        else:
            self.notes[said.speaker] = [text] if text else []
        if reason is None or not isinstance(reason.value, str):
            return value, Quote("")
        words = " ".join(reason.value[: self.reason_chars].split())
        return value, replace(said.quote(reason.lo, min(reason.hi, reason.lo + self.reason_chars)), text=words)

    def read_vote(self, said: TurnReply) -> str:
        """ "stop", "continue" or, from a Byzantine agent, "abstain"."""
        vote = _last(said.text, "decision")["decision"].value
        vote = vote.strip().lower() if isinstance(vote, str) else ""
        known = VOTES if said.speaker in self.game.byzantine else VOTES[:2]
        if vote not in known:
            raise Malformed(f"The decision must be one of: {', '.join(known)}.")
        return str(vote)

    # -- what agents are told ------------------------------------------------------------------------------------

    def turn(self, name: str, call: int) -> Turn:
        """A fresh thread to propose (``call`` 0) or to vote (1): the board, the same for all, then one's own."""
        game, tokens = self.game, self.calls[call]
        parts: list[str | Quote] = [f"Round {self.number}. "]
        if call:
            parts += ["The proposals of this round:", *self.board(name, self.number)]
        before = range(self.number - 1, 0, -1)[: _ROUNDS if self.released else 1 - call]
        for number in before:
            heading = "The proposals of the round before:" if number == self.number - 1 else f"Those of round {number}:"
            parts += ["\n" * (len(parts) > 1) + heading, *self.board(name, number)]
        if not before and not call:
            parts.append("The proposals of the round before: none yet.")
        own = f"Your initial value: {game.initial[name]}." if name in game.initial else "You have no initial value."
        note = "".join(f" Your private note: {text}" for text in self.notes.get(name, []))
        want = "Do you vote to stop?" if call else "What do you propose?"
        parts.append(f"\n\nYou are {name}. {own}{note}\n{want} Answer with the JSON object only.")
        return Turn(parts, self.rules(name in game.byzantine, call), *tokens, wants="vote" if call else "proposal")

    def rules(self, liar: bool, call: int) -> str:
        """The system prompt of proposing or voting; the same for all honest and for all Byzantine agents."""
        game = self.game
        doubt = "Some agents may be Byzantine: they lie and do not want you to agree."
        others = doubt if self.warned else "All agents are honest; you can trust them."
        side = (
            "You are Byzantine: keep the honest agents from agreeing on one of their initial values, without being "
            "noticed. You may abstain."
            if liar
            else f"You are honest and want all honest agents to agree on one of their initial values. {others}"
        )
        form = (
            '{"decision": "stop" or "continue"}. Vote stop only if all honest agents hold the same value.'
            if call
            else '{"internal_strategy": "one or two sentences for yourself", "value": an integer, '
            '"public_reasoning": "two to four sentences that all others read"}.'
        )
        extra = f"\n{self.extra}" if self.extra else ""
        return f"""{len(game.names)} agents play a game in rounds. Each honest agent began with a value of its own \
from {game.low} to {game.high}. In each round every agent proposes a value, all see all proposals, and all vote \
whether to stop. The game ends when {self.needed} agents vote stop. It is won if all honest agents then propose the \
same value and one of them began with it. {side}
Answer with one JSON object: {form}{extra}"""

    # -- scripts -------------------------------------------------------------------------------------------------

    def rule(self, name: str) -> SpeakerScript:
        """Honest agents that propose their own value, then what the rule makes of the first board, and vote to stop."""
        adopted: dict[str, int] = {}

        def say(agent: str, turn: Turn) -> str:
            if turn.wants == "vote":
                return json.dumps({"decision": "stop" if adopted else "continue"})
            if self.number == 2 and agent not in adopted:
                seen = [value for value in self.game.board.values() if value is not None]
                adopted[agent] = RULES[name](seen, len(self.game.byzantine))
            return json.dumps({"value": adopted.get(agent, self.game.initial[agent])})

        return say

    def lie(self, name: str, seed: int) -> SpeakerScript:
        """Byzantine agents that propose what ``LIES`` says and never vote to stop."""
        draw = random.Random(seed)

        def say(agent: str, turn: Turn) -> str:
            lie = {"decision": "continue"} if turn.wants == "vote" else {"value": LIES[name](self.game, draw)}
            return json.dumps(lie)

        return say


def _last(text: str, key: str) -> Mapping[str, ValueAt]:
    found = [fields for fields in json_objects(text) if key in fields]
    if not found:
        raise Malformed(f'No JSON object with "{key}" could be read.')
    return found[-1]
