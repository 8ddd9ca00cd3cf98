"""What an adapter learns from: teams that write one list together, an item on each line, and name nothing twice.

Half of the lessons give the list (words to be divided among the workers), the other half only its topic. An oracle
writes for all: where an item begins, each worker draws evenly from those that nobody has begun at an earlier tick, and
where workers do not see each other, from those that it has not begun itself. Two may begin the same one in one tick,
for neither sees the other's choice before it is made. What is learnt after each token is not the item that was drawn,
but how likely each next token is, over all items that were as likely.

The topics (``list_topics.toml``) are others than those that an adapter is judged on (``tasks/topics.py``).
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kvorum.lab.training.template import Template, record
from kvorum.programs import find
from kvorum.runs.parameters import Value
from kvorum.runs.program import Task

TOPICS: dict[str, list[str]] = {
    topic: [member.strip() for member in members.replace("\n", " ").split(",")]
    for topic, members in tomllib.loads(Path(__file__).with_name("list_topics.toml").read_text("utf-8")).items()
}
BY_TOPIC = (
    "Write a list of different {}, one on each line and nothing else. Nothing may be listed twice.",
    "Name as many {} as you can. One on each line, each only once, and no other words.",
    "Please collect {}: a plain list with one entry on a line and no entry twice.",
    "List {}, one per line, without repeats and without numbers.",
)
BY_WORDS = (
    "Write down each of these words once, one on each line and nothing else: {}.",
    "Here are some words: {}. Copy them as a list, one on a line, each only once.",
    "Name each of these once, one per line, in any order: {}.",
)
PARAMS: dict[str, Value] = {"answer": "text", "ends": "line", "openings": False, "check_every": 0}
"""How the program is asked for, in training as in the study."""
TEAMS, TICKS = (2, 3, 4), (18, 24, 30)
"""Workers of a team, and tokens that each of them writes."""
FULL = 0.85
"""Of a list so much may be named in a lesson, about, so that there is always something left to draw."""


@dataclass(frozen=True)
class ListLesson:
    """A batch of teams with one prompt. ``ids``: ``[teams, tokens]``; ``target``: ``[teams, workers, ticks, choices]``,
    how likely each of ``choices`` (ids of the same shape) is after each drawn token; ``begins``: ``[teams, workers,
    ticks]``, whether an item begins with it."""

    template: Template
    ids: Tensor
    choices: Tensor
    target: Tensor
    begins: Tensor


@dataclass
class _Writer:
    """A worker of an oracle's team: the item that it writes, those that were as likely, and what it has begun."""

    item: int = -1
    at: int = 0
    likely: list[int] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)


class ListLessons:
    """Makes lessons in the tokens of a model; the same generator, the same lessons."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, generator: torch.Generator) -> None:
        self.tokenizer, self.generator = tokenizer, generator

    async def lesson(self, teams: int, *, given: bool, shared: bool) -> ListLesson:
        """A lesson with a list that is ``given``, or with its topic; for workers that see each other, or do not."""
        workers, ticks = TEAMS[self._draw(len(TEAMS))], TICKS[self._draw(len(TICKS))]
        if given:
            every = sorted({member for members in TOPICS.values() for member in members})
            order = torch.randperm(len(every), generator=self.generator).tolist()
            members = [every[at] for at in order[: 12 + self._draw(17)]]
            told = ", ".join(members)
        else:
            told = list(TOPICS)[self._draw(len(TOPICS))]
            members = [member[0].upper() + member[1:] for member in TOPICS[told]]
        items = [self._ids(f"{member}\n") for member in members]
        each = sum(map(len, items)) / len(items)
        if shared:  # else each has the whole list for itself
            ticks = min(ticks, max(4, int(FULL * len(items) * each / workers)))
        wordings = list(BY_WORDS if given else BY_TOPIC)
        prompt = wordings[self._draw(len(wordings))].format(told)
        template = await self._template(prompt, workers, ticks, shared)
        played = [self.play(items, workers, ticks, shared) for _ in range(teams)]
        words = torch.tensor([[token for line, _, _ in play for token in line] for play in played])
        choices, target = _padded([[likely for _, likely, _ in play] for play in played])
        begins = torch.tensor([[starts for _, _, starts in play] for play in played])
        return ListLesson(template, template.fill(words)[0], choices, target, begins)

    def play(
        self, items: Sequence[Sequence[int]], workers: int, ticks: int, shared: bool
    ) -> list[tuple[list[int], list[dict[int, float]], list[bool]]]:
        """One team: of each worker its tokens, how likely the oracle had each next one, and whether an item began."""
        writers = [_Writer() for _ in range(workers)]
        lines: list[tuple[list[int], list[dict[int, float]], list[bool]]] = [([], [], []) for _ in writers]
        for _ in range(ticks):
            everybodys = set[int]().union(*(writer.begun for writer in writers))  # before this tick
            for writer, (tokens, targets, begins) in zip(writers, lines, strict=True):
                begins.append(writer.at == 0)
                if writer.at == 0:
                    seen = everybodys | writer.begun if shared else writer.begun
                    writer.likely = [at for at in range(len(items)) if at not in seen] or list(range(len(items)))
                    writer.item = writer.likely[self._draw(len(writer.likely))]
                    writer.begun.add(writer.item)
                following = Counter(items[at][writer.at] for at in writer.likely)
                targets.append({token: count / len(writer.likely) for token, count in following.items()})
                token = items[writer.item][writer.at]
                tokens.append(token)
                writer.likely = [at for at in writer.likely if items[at][writer.at] == token]
                writer.at = (writer.at + 1) % len(items[writer.item])
        return lines

    async def _template(self, prompt: str, workers: int, ticks: int, shared: bool) -> Template:
        """The arrangement of a run with that prompt, in which blanks stand for what workers write."""
        spare = [word for word in self._spare if word not in prompt]
        written = [spare[at * ticks : (at + 1) * ticks] for at in range(workers)]
        channel = "cache" if shared else "none"
        return await record(find("hogwild"), self.tokenizer, Task(prompt), [], written, channel=channel, **PARAMS)

    @cached_property
    def _spare(self) -> list[str]:
        """Rare words that are one token behind a space, as blanks; no text of the program has them."""
        found = []
        for token, number in sorted(self.tokenizer.get_vocab().items(), key=lambda entry: -entry[1]):
            word = self.tokenizer.convert_tokens_to_string([token]).strip()
            if len(word) > 6 and word.isalpha() and self._ids(f" {word}") == [number]:
                found.append(word)
            if len(found) == 2 * max(TEAMS) * max(TICKS):
                break
        return found

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _draw(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))


def _padded(targets: Sequence[Sequence[Sequence[dict[int, float]]]]) -> tuple[Tensor, Tensor]:
    """Choices and how likely they are, ``[teams, workers, ticks, choices]`` each; id 0 with 0 where there are fewer."""
    most = max(len(likely) for team in targets for line in team for likely in line)
    ids = [[[[*likely] + [0] * (most - len(likely)) for likely in line] for line in team] for team in targets]
    shares = [
        [[[*likely.values()] + [0.0] * (most - len(likely)) for likely in line] for line in team] for team in targets
    ]
    return torch.tensor(ids), torch.tensor(shares)
