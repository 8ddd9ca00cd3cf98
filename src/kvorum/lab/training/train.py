"""Training the calibration model: a small Llama on lessons, in pieces that go on where the last one ended.

The same seed and steps give the same weights on one machine and number of threads. Not covered: other optimizers, GPUs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from kvorum.lab.training.beginning import lay_out
from kvorum.lab.training.forward import TeamForward
from kvorum.lab.training.kept_state import load_state, save_state
from kvorum.lab.training.lessons import Lesson, Lessons
from kvorum.models.probe import probe


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the model looks and how it is trained. ``tokens``: of a batch, about. Up to step ``asked`` every second
    lesson is one of ``enquiry``, which is learnt early; then every fourth one, for ``cover`` takes longer. The rate
    falls to nearly nothing at each of the steps ``falls`` and starts there from its height again, for ``cover`` too:
    what it has to leave out it learns word by word."""

    steps: int = 5800
    falls: tuple[int, ...] = (2200, 3400)
    asked: int = 600
    tokens: int = 1600
    rate: float = 3e-3
    warm: int = 100
    layers: int = 3
    width: int = 128
    heads: int = 4
    feed: int = 256
    theta: float = 10_000.0
    """Of the rotation: so slow that equal words are found equal at any distance of these lessons."""
    seed: int = 0
    apart: float = 0.125
    """The share of batches in which workers do not see each other, so that to see nobody is nothing new."""


def small(recipe: Recipe, vocab: int) -> LlamaForCausalLM:
    """A fresh model; its seed is the recipe's."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=recipe.width,
        intermediate_size=recipe.feed,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=1024,
        initializer_range=0.06,
        tie_word_embeddings=True,
        attention_bias=True,  # so that a head can look one token back, whatever stands there
        rope_parameters={"rope_type": "default", "rope_theta": recipe.theta},
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    lay_out(model, recipe.theta)
    return model


def loss(forward: TeamForward, lesson: Lesson) -> Tensor:
    """Cross entropy over its least value, by tick: ``[ticks]``."""
    wanted = lesson.template.drawn
    logits = forward(lesson.ids, wanted.flatten()).log_softmax(-1)
    logits = logits.unflatten(1, wanted.shape)
    at = lesson.choices[:, None, None].expand(*logits.shape[:3], -1)
    least = -(lesson.target * lesson.target.clamp_min(1e-9).log()).sum(-1)
    found: Tensor = -(logits.gather(-1, at) * lesson.target).sum(-1) - least
    return found.mean((0, 1))


class Training:
    """A model on its way. ``folder`` keeps it between pieces; a piece begins where the last one ended."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.lessons = Lessons(self.generator)
        self.model = small(recipe, len(self.lessons.tokenizer))
        self.rotaries = [layer.rotary for layer in probe(self.model).layers]
        self.model.train()
        self.parameters = dict(self.model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.forwards: dict[int, TeamForward] = {}
        self.done = load_state(folder, self.parameters, self.optimizer, self.generator)

    async def lesson(self) -> tuple[str, Lesson]:
        """The next one, by what it is called."""

        def draw(count: int) -> int:
            return int(torch.randint(count, (), generator=self.generator))

        task = "enquiry" if self.done % (2 if self.done < self.recipe.asked else 4) == 1 else "cover"
        apart = float(torch.rand((), generator=self.generator)) < self.recipe.apart
        workers = (1, 2, 4, 8)[draw(4)] if task == "cover" else (2, 4, 8)[draw(3)]
        template = await self.lessons.template(task, workers, not apart)
        teams = max(4, self.recipe.tokens // len(template.trace))
        name = f"{task} {workers}{' apart' if apart else ''}"
        make = self.lessons.cover if task == "cover" else self.lessons.enquiry
        return name, await make(teams, workers, not apart)

    async def step(self) -> tuple[str, Tensor]:
        """One step; the lesson's name and its loss by tick."""
        recipe = self.recipe
        name, lesson = await self.lesson()
        key = id(lesson.template)
        if key not in self.forwards:
            self.forwards[key] = TeamForward(self.model, lesson.template.trace, self.rotaries)
        found = loss(self.forwards[key], lesson)
        since = max(fall for fall in (0, *recipe.falls) if fall <= self.done)
        until = min(fall for fall in (*recipe.falls, recipe.steps) if fall > self.done)
        cosine = 0.5 * (1 + math.cos(math.pi * (self.done - since) / (until - since)))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate * min((self.done + 1) / recipe.warm, 0.02 + 0.98 * cosine)
        self.optimizer.zero_grad()
        found.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.done += 1
        return name, found.detach()

    async def run(self, seconds: float, tell: Callable[[str], None]) -> bool:
        """Train until all steps are done (True) or the time is up, and keep what there is."""
        started, sums = time.monotonic(), dict[str, list[Tensor]]()
        while self.done < self.recipe.steps and time.monotonic() - started < seconds:
            name, found = await self.step()
            sums.setdefault(name, []).append(found)
            if self.done % 50 == 0:
                for name, some in sorted(sums.items()):
                    line = torch.stack(some).mean(0)
                    tell(f"{self.done} {name} {line.mean():.4f}: {' '.join(f'{one:.3f}' for one in line.tolist())}")
                tell(f"{self.done} {time.monotonic() - started:.0f} s")
                sums.clear()
                self._save()
        self._save()
        return self.done >= self.recipe.steps

    def finish(self, folder: Path) -> None:
        """Write model and tokenizer as a folder that ``Engine.load`` takes, weights in float16."""
        torch.nn.Module.to(self.model, torch.float16)
        self.model.save_pretrained(folder)
        self.lessons.tokenizer.save_pretrained(folder)

    def _save(self) -> None:
        save_state(self.folder, self.parameters, self.optimizer, self.generator, self.done)
