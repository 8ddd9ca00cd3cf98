"""What the calibration model learns from: traces of oracles on the tasks ``cover`` and ``enquiry``, with blanks filled.

The oracle of ``cover`` draws evenly from the words that nobody has named at an earlier tick, and where workers do not
see each other, from those that it has not named itself. Its even distribution is the target, not the word that it drew.
The oracle of ``enquiry`` says what it wants, the thing that it is asked for and its number, what it wants and that
number; where workers do not see each other it guesses what has to be heard.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from kvorum.lab.training.template import Template, record
from kvorum.lab.training.vocabulary import tokenizer
from kvorum.programs import find
from kvorum.runs.parameters import Value
from kvorum.runs.program import Task
from kvorum.runs.worker import choose_names
from kvorum.tasks import enquiry
from kvorum.tasks.cover import WORDS, cover

WANTED, FACTS, TURNS = 16, 2, 5
"""Words on a list of ``cover``; numbers that each worker of ``enquiry`` is told; words that it writes."""
PARAMS: dict[str, Value] = {"answer": "text", "ends": "line", "openings": False, "check_every": 0}
"""How the program is asked for, in training as in the study."""
NUMBERS = [str(number) for number in range(enquiry.LOW, enquiry.HIGH + 1)]


def words() -> PreTrainedTokenizerFast:
    """The calibration model's tokenizer: all words that these tasks and the program's own texts have."""
    everything = " ".join(["", *WORDS, *enquiry.KEYS, *NUMBERS])
    told = cover(0, ()).prompt.partition(":")[0] + ":"
    notes = "Notes of others who work on this at the same time:\n\nNotes:\n\n### Only you know this (own)\n"
    return tokenizer([everything, f"{told}\n\n{notes}", f"{enquiry.PROMPT} want\nknow"])


@dataclass(frozen=True)
class Lesson:
    """A batch. ``ids``: ``[teams, tokens]``; ``target``: ``[teams, workers, ticks, choices]``, how likely each of
    ``choices [teams, choices]`` (ids) is after each drawn token."""

    template: Template
    ids: Tensor
    choices: Tensor
    target: Tensor


class Lessons:
    """Makes lessons; the same generator, the same lessons."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.tokenizer = words()
        self._templates: dict[tuple[str, int, bool], Template] = {}
        number = self.tokenizer.get_vocab()
        ids = [[number[f"Ġ{word}"] for word in some] for some in (WORDS, enquiry.KEYS, NUMBERS)]
        self._words, self._keys, self._numbers = (torch.tensor(some) for some in ids)

    async def template(self, task: str, workers: int, shared: bool) -> Template:
        """The arrangement of a task for so many workers, recorded when it is first asked for."""
        key = (task, workers, shared)
        if key not in self._templates:
            spare = [*WORDS, *enquiry.KEYS, *NUMBERS]
            names = choose_names(workers)
            if task == "cover":
                item = cover(0, ())
                told, ticks, given = item.solution.split(), WANTED // workers, Task(item.prompt)
            else:
                ticks, size = TURNS, 2 * FACTS + 1
                told = spare[: workers * size]
                lines = [told[at : at + size] for at in range(0, len(told), size)]
                private = {
                    name: enquiry.told(dict(zip(line[:-1:2], line[1::2], strict=True)), line[-1])
                    for name, line in zip(names, lines, strict=True)
                }
                given = Task(enquiry.PROMPT, private=private)
            spare = [word for word in spare if word not in told]
            written = [spare[at * ticks : (at + 1) * ticks] for at in range(workers)]
            channel = "cache" if shared else "none"
            self._templates[key] = await record(
                find("hogwild"), self.tokenizer, given, told, written, channel=channel, **PARAMS
            )
        return self._templates[key]

    async def cover(self, teams: int, workers: int, shared: bool = True) -> Lesson:
        """A lesson of ``cover``."""
        template = await self.template("cover", workers, shared)
        ticks = WANTED // workers
        listed = self._words[self._shuffled(teams, len(WORDS))[:, :WANTED]]
        named = torch.zeros(teams, workers, WANTED, dtype=torch.bool)
        target, written = [], []
        for _ in range(ticks):
            even = (~named).float()
            even /= even.sum(-1, keepdim=True)
            drawn = torch.multinomial(even.flatten(0, 1), 1, generator=self.generator).view(teams, workers)
            target.append(even)
            written.append(listed.gather(1, drawn))
            new = torch.nn.functional.one_hot(drawn, WANTED).bool()
            named = named | (new.any(1, keepdim=True) if shared else new)
        ids, _ = template.fill(torch.cat([listed, torch.stack(written, 2).flatten(1)], 1))
        return Lesson(template, ids, listed, torch.stack(target, 2))

    async def enquiry(self, teams: int, workers: int, shared: bool = True) -> Lesson:
        """A lesson of ``enquiry``."""
        template = await self.template("enquiry", workers, shared)
        keys = self._keys[self._shuffled(teams, len(self._keys))[:, : workers * FACTS]].view(teams, workers, FACTS)
        numbers = self._numbers[self._shuffled(teams, len(self._numbers))[:, : workers * FACTS]].view_as(keys)
        asked = torch.randint(FACTS, (teams, workers, 1), generator=self.generator)
        key, number = keys.gather(2, asked)[..., 0], numbers.gather(2, asked)[..., 0]
        ring = self._shuffled(teams, workers)  # ring[i] asks ring[i + 1]
        holder = torch.empty_like(ring).scatter(1, ring, ring.roll(-1, 1))
        want, answer = key.gather(1, holder), number.gather(1, holder)
        told = torch.cat([torch.stack([keys, numbers], 3).flatten(2), want[..., None]], 2)
        written = torch.stack([want, key, number, want, answer], 2)
        ids, target = template.fill(torch.cat([told.flatten(1), written.flatten(1)], 1))
        choices = torch.cat([self._keys, self._numbers])
        likely = (target[..., None] == choices).float()
        if not shared:  # what has to be heard can only be guessed
            own = (keys[..., None] == choices).any(2).float() / FACTS
            likely[:, :, 1] = own
            likely[:, :, 4] = torch.cat([torch.zeros(len(self._keys)), torch.full_like(self._numbers, 1) / 40.0])
        return Lesson(template, ids, choices.expand(teams, -1), likely)

    def _shuffled(self, lines: int, count: int) -> Tensor:
        return torch.rand(lines, count, generator=self.generator).argsort(1)
