"""LatentMAS as transformers computes it, densely and in float64, and the engines that are held against it."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from families import VOCAB, build
from kvorum import Budget, Engine, Result, Run, Sampling
from kvorum.kv import LATENT, Block
from kvorum.models.transformers_cache import cache_argument
from kvorum.programs.relay.relay import relay

GREEDY = Sampling(temperature=0.0)

STEPS = 3


class Characters:
    """A tokenizer of 96 characters, one token each."""

    chat_template = None
    eos_token_id = None

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": [min(max(ord(mark) - 32, 0), VOCAB - 1) for mark in text]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(chr(token + 32) for token in ids)


@cache
def _engine(name: str) -> Engine:
    return Engine(build(name, torch.float64), Characters(), kv_tokens=16384)


def engine(name: str = "llama") -> Engine:
    return _engine(name)


def solve(prompt: str = "What is 2+3?", *, name: str = "llama", ticks: int = 24, **params: Any) -> tuple[Result, Run]:
    held: list[Run] = []
    options: dict[str, Any] = {"latent_steps": STEPS, "final_tokens": 2, **params}
    budget = options.pop("budget", Budget(ticks=ticks))
    result = engine(name).run(relay, prompt, sampling=GREEDY, budget=budget, control=held.append, **options)
    return result, held[0]


@cache
def oracle_model(name: str = "llama") -> Any:
    """The same model, with transformers' rotary angles and softmax in float64 as kvorum has them."""
    model: Any = copy.deepcopy(engine(name).model)
    model.set_attn_implementation("sdpa")
    rotary = model.model.rotary_emb

    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[0].double()[:, None] * rotary.inv_freq.double()
        angles = torch.cat((angles, angles), dim=-1)[None]
        return angles.cos(), angles.sin()

    rotary.forward = forward
    return model


def oracle_align(model: Any, hidden: Tensor, align: str) -> Tensor:
    table, head = model.get_input_embeddings().weight, model.lm_head.weight
    if align == "soft":
        soft: Tensor = torch.softmax(hidden @ head.T, dim=-1) @ table
        return soft
    if align == "ridge":
        penalty = 1e-5**0.5 * torch.eye(table.shape[1], dtype=table.dtype)
        padded = torch.cat((table, torch.zeros_like(penalty)))
        hidden = hidden @ torch.linalg.lstsq(torch.cat((head, penalty)), padded).solution
    scaled: Tensor = hidden / hidden.norm() * table.norm(dim=1).mean()
    return scaled


@torch.no_grad()
def dense_agent(model: Any, past: DynamicCache, prompt: list[int], steps: int, align: str = "norm") -> Tensor:
    """Prefill and ``steps`` latent steps on a contiguous cache, which grows; the logits of the last position."""
    out = model(torch.tensor([prompt]), **{cache_argument(model): past}, use_cache=True, output_hidden_states=True)
    for _ in range(steps):
        embeds = oracle_align(model, out.hidden_states[-1][:, -1:], align)
        out = model(inputs_embeds=embeds, **{cache_argument(model): past}, use_cache=True, output_hidden_states=True)
    logits: Tensor = out.logits[0, -1]
    return logits


def parts(block: Block) -> tuple[list[int], int]:
    """The prompt's ids and the number of latent steps behind them."""
    ids = [token for token in block.ids if token != LATENT]
    assert block.ids == ids + [LATENT] * (len(block) - len(ids))
    return ids, len(block) - len(ids)
