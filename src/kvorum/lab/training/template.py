"""Traces of one arrangement with blanks: what a program's views show is recorded once, and filled for every problem.

A *blank* is a word that differs from problem to problem: part of the prompt, of what one worker is told, or what a
worker writes. Tokens are whole words (``vocabulary``), so every filling has the arrangement of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kvorum.api import Engine
from kvorum.backends.fake import FakeBackend
from kvorum.engine.budget import Budget
from kvorum.errors import BadRequest
from kvorum.lab.training.recording import Recording
from kvorum.lab.training.team_trace import TeamTrace
from kvorum.runs.parameters import Value
from kvorum.runs.program import Program, Task
from kvorum.runs.run import Run
from kvorum.runs.start import arun


@dataclass(frozen=True, eq=False)
class Template:
    """An arrangement with blanks.

    ``ids``: ``[tokens]`` of the recorded run. ``places``, ``blanks``: tokens that are filled, and with which blank.
    ``drawn``: ``[workers, ticks]``, the tokens after which each worker draws; ``targets``: the blanks that it draws.
    """

    trace: TeamTrace
    ids: Tensor
    places: Tensor
    blanks: Tensor
    drawn: Tensor
    targets: Tensor

    def fill(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Ids ``[teams, tokens]`` and targets ``[teams, workers, ticks]`` of ``words [teams, blanks]``."""
        ids = self.ids.repeat(len(words), 1)
        ids[:, self.places] = words[:, self.blanks]
        return ids, words[:, self.targets]


async def record(
    program: Program,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    told: Sequence[str],
    written: Sequence[Sequence[str]],
    **params: Value,
) -> Template:
    """Run ``program`` on ``task`` and make blanks of the words ``told``, which stand in it, and of those ``written``.

    Args:
        written: by worker and tick (two at least), in place of what a model would write. Blanks are numbered: told,
            then written, worker by worker.

    Raises:
        BadRequest: a word is no token, or stands for two blanks.
    """
    blanks = [*told, *(word for line in written for word in line)]
    found: list[list[int]] = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in blanks]
    numbers = {ids[0]: at for at, ids in enumerate(found)}
    if any(len(ids) != 1 or ids[0] == tokenizer.unk_token_id for ids in found) or len(numbers) < len(blanks):
        raise BadRequest("Each blank needs a word of its own that is a token.")
    backend = Recording(FakeBackend(len(tokenizer), kv_tokens=8192, ends=[tokenizer.eos_token_id]))
    ticks, workers = len(written[0]), len(written)
    first = len(told)

    def follow(run: Run) -> None:
        for at, worker in enumerate(run.workers):
            worker.allow = _follow([found[first + at * ticks + tick][0] for tick in range(ticks)], worker.ids)

    await arun(
        Engine(backend, tokenizer),
        program,
        task,
        workers=workers,
        budget=Budget(decoded=workers * (ticks - 1)),
        control=follow,
        **params,  # type: ignore[arg-type]  # they are the program's alone
    )
    trace = backend.trace()
    filled = [(at, numbers[token]) for at, token in enumerate(trace.ids) if token in numbers]
    if not set(range(first)) <= {blank for _, blank in filled}:
        raise BadRequest("A word that is told does not stand in the trace as a token of its own.")
    places, which = torch.tensor(filled).unbind(1)
    number = {blank: at for at, blank in filled}
    fed = [[number[first + at * ticks + tick] for tick in range(ticks - 1)] for at in range(workers)]
    last = [[int((trace.distance[line[0]] == 1).argmax()), *line] for line in fed]  # its first word stands behind that
    targets = first + torch.arange(workers * ticks).view(workers, ticks)
    return Template(trace, torch.tensor(trace.ids), places, which, torch.tensor(last), targets)


def _follow(ids: Sequence[int], written: list[int]) -> Callable[[Tensor], Tensor]:
    def allow(logits: Tensor) -> Tensor:
        mask = torch.zeros(len(logits), dtype=torch.bool)
        mask[ids[min(len(written), len(ids) - 1)]] = True
        return mask

    return allow
