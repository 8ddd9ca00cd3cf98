"""How the calibration model begins: not from noise alone, but with heads that copy, look one word back and compare.

To find what stands behind an equal word takes two layers: one head tells each word what stands before it, another one
looks for the word whose predecessor is the present one, and copies it. From noise this is found late and by leaps; laid
out at the beginning it is there from the first steps, and training makes of it what the lessons need. Nothing here is
kept fixed, nothing knows a word: it is a distribution of first weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

_QUIET = 0.25
"""What layers write is this much smaller at first, so that the words themselves stay readable."""
_GAIN = 2.0
"""How much larger the queries of heads that compare are, so that they tell an equal word from others."""
_EVEN = 0.2
"""How much smaller those of the other heads are, so that they look at everything evenly."""
_COPY = 0.5
"""What a head copies comes with this, squared."""
_BACK = 30.0
"""By how much, in logits of attention, the word before is preferred to its neighbours."""


@torch.no_grad()
def lay_out(model: LlamaForCausalLM, theta: float) -> None:
    """Give a fresh model its heads: in each layer the second compares words as they are; the first looks one word back
    in the first layer, and in later ones for the word behind an equal one. Heads of later layers copy what they look
    at; those that are left look at everything evenly.

    Args:
        model: with attention biases, one key head for each query head, two heads at least. theta: of its rotation.
    """
    size = model.config.hidden_size // model.config.num_attention_heads

    def part(layer: int, name: str) -> Tensor:
        return model.get_parameter(f"model.layers.{layer}.{name}")

    layers = range(model.config.num_hidden_layers)
    first, second = slice(0, size), slice(size, 2 * size)
    for at in layers:
        part(at, "self_attn.o_proj.weight").mul_(_QUIET)
        part(at, "mlp.down_proj.weight").mul_(_QUIET)
        query = part(at, "self_attn.q_proj.weight")
        query[second] *= _GAIN
        part(at, "self_attn.k_proj.weight")[second] = query[second]
    carried = _carried(part(0, "self_attn.o_proj.weight"), part(0, "self_attn.v_proj.weight"), size)
    for at in layers[1:]:
        query, value = part(at, "self_attn.q_proj.weight"), part(at, "self_attn.v_proj.weight")
        query[first] *= _GAIN
        part(at, "self_attn.k_proj.weight")[first] = query[first] @ carried
        query[2 * size :] *= _EVEN
        torch.nn.init.orthogonal_(value, gain=_COPY)
        part(at, "self_attn.o_proj.weight").copy_(value.T)
    asks, stands = _looks_back(size, theta)
    part(0, "self_attn.q_proj.bias")[first], part(0, "self_attn.k_proj.bias")[first] = asks, stands
    part(0, "self_attn.q_proj.weight")[first] *= 0.1
    part(0, "self_attn.k_proj.weight")[first] *= 0.1


def _carried(out: Tensor, value: Tensor, size: int) -> Tensor:
    """From what the first head writes of a word, back to the word (nearly): ``[width, width]``."""
    written = out[:, :size] @ value[:size]
    carried: Tensor = written.T * (math.sqrt(len(written)) / written.norm())
    return carried


def _looks_back(size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Biases of query and key whose rotated product is greatest where the key stands one place before the query."""
    half = size // 2
    turn = theta ** (-torch.arange(half) * 2 / size)
    used = (torch.arange(half) < half // 2).float()  # the slow ones hardly tell neighbours apart
    strength = math.sqrt(_BACK * math.sqrt(size) / float((used * (1 - turn.cos())).sum()))
    used = used * strength
    return torch.cat([used, torch.zeros(half)]), torch.cat([used * turn.cos(), used * turn.sin()])
