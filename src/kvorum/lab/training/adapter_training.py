"""Training an adapter: a model of any family learns to write lists with others, in pieces that go on where one ended.

The model stays as it is; what is trained are low-rank layers beside some of its own (``low_rank.py``), by gradients
through whole team traces (``forward.py``). The same seed and steps give the same adapter on one machine and number of
threads. Not covered: GPUs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from kvorum.lab.training.forward import TeamForward
from kvorum.lab.training.kept_state import load_state, save_state
from kvorum.lab.training.list_lessons import ListLesson, ListLessons
from kvorum.lab.training.low_rank import add_low_rank, write_adapter
from kvorum.models.probe import probe


@dataclass(frozen=True, slots=True)
class AdapterRecipe:
    """What is trained, and how. ``targets``: the layers that get a change of rank ``rank``, times ``alpha / rank``.
    ``teams``: of a batch. Every second lesson gives the list, the others its topic. The rate stays at its height until
    the last quarter of the steps, in which it falls to nothing; before that it does not matter how many there will be.
    """

    steps: int = 400
    teams: int = 4
    rate: float = 2e-3
    warm: int = 20
    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Attention alone: what is to be learnt is what to make of the others' words."""
    seed: int = 0
    apart: float = 0.125
    """The share of batches in which workers do not see each other, so that to see nobody is nothing new."""


def loss(forward: TeamForward, lesson: ListLesson) -> Tensor:
    """Cross entropy over its least value, of each token: ``[teams, workers, ticks]``."""
    wanted = lesson.template.drawn
    logits = forward(lesson.ids, wanted.flatten()).log_softmax(-1).unflatten(1, wanted.shape)
    least = -(lesson.target * lesson.target.clamp_min(1e-9).log()).sum(-1)
    found: Tensor = -(logits.gather(-1, lesson.choices) * lesson.target).sum(-1) - least
    return found


class AdapterTraining:
    """An adapter on its way. ``folder`` keeps it between pieces; a piece begins where the last one ended.

    Args:
        model: in float32, which gets layers beside its own. tokenizer: its own.

    Raises:
        UnsupportedModel: the model cannot be exact over views. BadRequest: it has no such layers.
    """

    def __init__(
        self, recipe: AdapterRecipe, folder: Path, model: nn.Module, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.recipe, self.folder, self.model = recipe, folder, model
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.lessons = ListLessons(tokenizer, self.generator)
        self.rotaries = [layer.rotary for layer in probe(model).layers]
        self.layers = add_low_rank(model, recipe.targets, recipe.rank, recipe.alpha, self.generator)
        self.parameters = {
            f"{name}.{half}": value
            for name, layer in self.layers.items()
            for half, value in layer.named_parameters()
            if value.requires_grad
        }
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.done = load_state(folder, self.parameters, self.optimizer, self.generator)

    async def lesson(self) -> tuple[str, ListLesson]:
        """The next one, by what it is called."""
        given = self.done % 2 == 1
        shared = float(torch.rand((), generator=self.generator)) >= self.recipe.apart
        found = await self.lessons.lesson(self.recipe.teams, given=given, shared=shared)
        return f"{'words' if given else 'topic'}{'' if shared else ' apart'}", found

    async def step(self) -> tuple[str, float, float]:
        """One step; the lesson's name, and its loss where items begin and within them."""
        recipe = self.recipe
        name, lesson = await self.lesson()
        template = lesson.template
        found = loss(TeamForward(self.model, template.trace, self.rotaries, template.places), lesson)
        rate = min(1.0, (self.done + 1) / recipe.warm, 4 * (1 - self.done / recipe.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate * rate
        self.optimizer.zero_grad()
        found.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.done += 1
        return name, float(found.detach()[lesson.begins].mean()), float(found.detach()[~lesson.begins].mean())

    async def run(self, seconds: float, tell: Callable[[str], None], every: int = 10) -> bool:
        """Train until all steps are done (True) or the time is up, and keep what there is, every few steps too."""
        started, sums = time.monotonic(), dict[str, list[tuple[float, float]]]()
        while self.done < self.recipe.steps and time.monotonic() - started < seconds:
            name, begins, within = await self.step()
            sums.setdefault(name, []).append((begins, within))
            if self.done % every == 0:
                for name, some in sorted(sums.items()):
                    first, rest = (sum(part) / len(some) for part in zip(*some, strict=True))
                    tell(f"{self.done} {name}: {first:.3f} where items begin, {rest:.3f} within")
                tell(f"{self.done} {time.monotonic() - started:.0f} s")
                sums.clear()
                self._save()
        self._save()
        return self.done >= self.recipe.steps

    def finish(self, folder: Path, base: str) -> None:
        """Write the adapter as it is now, for the model called ``base``, as a folder that ``Engine.load`` takes."""
        write_adapter(folder, self.layers, base)

    def _save(self) -> None:
        save_state(self.folder, self.parameters, self.optimizer, self.generator, self.done)
