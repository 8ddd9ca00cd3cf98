"""What a GGUF file computes, by a second path: its tensors as they are, through a plain float32 forward.

It shares nothing with the conversion (`model`, `architectures`, `rope`) but the reading of bytes: keys are looked up
here, tensors keep the file's names and the file's order of rows, the `gguf` package dequantises them, and the steps are
those of llama.cpp's graphs (see `keys.VERSION`). One layer is in memory at a time. So a mistake of the conversion shows
as a difference (`models/selfcheck`).

Not covered: speed, caches, anything that is not refused before by `model`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from kvorum.models.gguf.file import GGUFFile

_PAIRS = ("llama", "granite", "smollm3", "arcee", "mistral3", "glm4", "command-r", "cohere2")  # rotate neighbours
_HALVES = (
    *("qwen2", "qwen3", "qwen2moe", "qwen3moe", "gemma", "gemma2", "gemma3", "phi3", "olmo2", "seed_oss"),
    *("starcoder2", "stablelm", "nemotron"),
)
_SQUARED = ("arcee", "nemotron")  # the feed-forward has no gate, but the square of what is above zero
_PATTERN = {"gemma2": 2, "gemma3": 6, "olmo2": 4, "cohere2": 4}  # all but the last of so many layers have a window


class Reference:
    """A GGUF file's forward, layer by layer: `embed`, then `layer` for each, then `logits`."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        self._arch = file.architecture
        self.layers = int(self._number("block_count"))
        self._hidden = int(self._number("embedding_length"))
        self._heads = int(self._number("attention.head_count"))
        self._groups = int(self._number("attention.head_count_kv", self._heads))
        self._head = int(self._number("attention.key_length", self._hidden // self._heads))
        self._centred = f"{self._arch}.attention.layer_norm_epsilon" in file.metadata
        self._eps = self._number(f"attention.layer_norm{'' if self._centred else '_rms'}_epsilon")
        self.window = int(self._number("attention.sliding_window", 4096 if self._arch == "gemma2" else 0))
        """How many tokens a layer sees that does not see all; 0: all layers do."""
        self.narrower = 0
        """By how many tokens the window is made narrower, so that a short text leaves it."""

    @staticmethod
    def covers(file: GGUFFile) -> bool:
        """Whether the file's architecture is written down here."""
        return file.architecture in _PAIRS + _HALVES

    def embed(self, ids: Tensor) -> Tensor:
        """The hidden states [tokens, hidden] that go into the first layer."""
        tensor = self._file.tensors["token_embd.weight"]
        rows = tensor.dequantize(tensor.data[ids.numpy()])
        if self._arch.startswith("gemma"):
            return rows * math.sqrt(self._hidden)
        return rows * (self._number("embedding_scale", 0.0) or 1.0)

    def layer(self, at: int, x: Tensor) -> Tensor:
        """The hidden states behind layer `at`."""
        held = self._layer_tensors(at)
        scale = self._number("residual_scale", 0.0) or 1.0 if self._arch == "granite" else 1.0
        before = self._norm(x, held, "attn_norm")
        out = self._attention(at, held, before)
        second = "ffn_norm"
        if self._arch == "seed_oss":
            second = "post_attention_norm"
        else:
            out = self._norm(out, held, "post_attention_norm")
        x = x + out * scale
        beside = self._arch in ("command-r", "cohere2") or (self._arch == "stablelm" and "ffn_norm.weight" not in held)
        h = before if beside else self._norm(x, held, second)
        out = self._experts(held, h) if "ffn_gate_inp.weight" in held else self._feed_forward(held, h)
        return x + self._norm(out, held, "post_ffw_norm") * scale

    def logits(self, x: Tensor, vocabulary: Tensor) -> Tensor:
        """The logits [tokens, n] of the ids in `vocabulary` from the last layer's hidden states."""
        last = {name: t.dequantize() for name, t in self._file.tensors.items() if name.startswith("output_norm.")}
        x = self._norm(x, last, "output_norm")
        tensor = self._file.tensors.get("output.weight", self._file.tensors["token_embd.weight"])
        found = x @ tensor.dequantize(tensor.data[vocabulary.numpy()]).T
        scale = self._number("logit_scale", 1.0)
        found = found / scale if self._arch == "granite" else found * scale
        cap = self._number("final_logit_softcapping", 30.0 if self._arch == "gemma2" else 0.0)
        return cap * torch.tanh(found / cap) if cap else found

    def _number(self, key: str, default: float | None = None) -> float:
        value = self._file.metadata.get(f"{self._arch}.{key}", default)
        value = value[0] if isinstance(value, list) and value else value
        if not isinstance(value, int | float):
            raise KeyError(key)
        return value

    def _layer_tensors(self, at: int) -> dict[str, Tensor]:
        prefix = f"blk.{at}."
        held = {name.removeprefix(prefix): t for name, t in self._file.tensors.items() if name.startswith(prefix)}
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return dict(zip(held, pool.map(lambda tensor: tensor.dequantize(), held.values()), strict=True))

    def _norm(self, x: Tensor, held: dict[str, Tensor], name: str) -> Tensor:
        """The norm of that name, or `x` where there is none."""
        weight = held.get(f"{name}.weight")
        if weight is None:
            return x
        if self._centred:
            x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self._eps) * weight
        return x + held[f"{name}.bias"] if f"{name}.bias" in held else x

    def _attention(self, at: int, held: dict[str, Tensor], x: Tensor) -> Tensor:
        tokens, wide, narrow = len(x), self._heads * self._head, self._groups * self._head
        if "attn_qkv.weight" in held:
            q, k, v = _linear(held, "attn_qkv", x).split([wide, narrow, narrow], -1)
        else:
            q, k, v = (_linear(held, f"attn_{name}", x) for name in "qkv")
        q, k = self._head_norm(held, "attn_q_norm", q), self._head_norm(held, "attn_k_norm", k)
        q, k, v = (part.view(tokens, -1, self._head).transpose(0, 1) for part in (q, k, v))
        slides = self._slides(at)
        unturned = (self._arch == "smollm3" and at % 4 == 3) or (self._arch == "cohere2" and not slides)
        if not unturned:
            q, k = self._rotate(q, slides), self._rotate(k, slides)
        k, v = (part.repeat_interleave(self._heads // self._groups, 0) for part in (k, v))
        scores = q @ k.transpose(1, 2) * self._attention_scale()
        cap = self._number("attn_logit_softcapping", 50.0) if self._arch == "gemma2" else 0.0
        scores = cap * torch.tanh(scores / cap) if cap else scores
        distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
        unseen = distance < 0
        if slides:
            unseen |= distance >= max(1, self.window - self.narrower)
        mixed = scores.masked_fill(unseen, -torch.inf).softmax(-1) @ v
        return _linear(held, "attn_output", mixed.transpose(0, 1).reshape(tokens, wide))

    def _head_norm(self, held: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        """Of each head, or of all heads together where the weight is as long as they are."""
        weight = held.get(f"{name}.weight")
        return x if weight is None else self._norm(x.unflatten(-1, (-1, len(weight))), held, name).flatten(-2)

    def _attention_scale(self) -> float:
        wide = {"gemma2": 46, "gemma3": 62}.get(self._arch)
        if wide == self.layers:  # the 27B models
            return 1 / math.sqrt(self._hidden // self._heads)
        given = self._number("attention.scale", 0.0) if self._arch == "granite" else 0.0
        return given or 1 / math.sqrt(self._head)

    def _slides(self, at: int) -> bool:
        if not self.window:
            return False
        pattern = self._file.metadata.get(f"{self._arch}.attention.sliding_window_pattern")
        if isinstance(pattern, list):
            return bool(pattern[at])
        every = pattern if isinstance(pattern, int) else _PATTERN.get(self._arch, 0)
        return not every or at % every < every - 1

    def _rotate(self, x: Tensor, slides: bool) -> Tensor:
        """Rotate [heads, tokens, head] by the position, which is the index."""
        rotated = int(self._number("rope.dimension_count", self._head))
        base, unscaled = self._number("rope.freq_base", 10000.0), False
        if slides and self._arch in ("gemma3", "olmo2"):
            local = 10000.0 if self._arch == "gemma3" else base
            base, unscaled = self._number("rope.freq_base_swa", local), True
        frequencies = base ** -(torch.arange(0, rotated, 2, dtype=torch.float64) / rotated)
        magnitude = 1.0
        if not unscaled:
            frequencies, magnitude = self._scaled(frequencies, base, rotated)
        angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequencies
        cos, sin = (turn.float() * magnitude for turn in (angles.cos(), angles.sin()))
        turned, rest = x[..., :rotated], x[..., rotated:]
        if self._arch in _PAIRS:
            a, b = turned[..., 0::2], turned[..., 1::2]
            turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
        else:
            a, b = turned.chunk(2, -1)
            turned = torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
        return torch.cat((turned, rest), -1)

    def _scaled(self, frequencies: Tensor, base: float, rotated: int) -> tuple[Tensor, float]:
        """The frequencies that the file's scaling makes, and what cosine and sine are multiplied by."""
        kind = self._file.metadata.get(f"{self._arch}.rope.scaling.type")
        context = self._number("context_length")
        original = self._number("rope.scaling.original_context_length", context)
        magnitude = self._number("rope.scaling.attn_factor", 1.0)
        factor = self._number("rope.scaling.factor", self._number("rope.scale_linear", 0.0)) or 1.0
        for name in ("rope_freqs.weight", "rope_factors_short.weight"):  # the text is shorter than the first context
            if name in self._file.tensors:
                frequencies = frequencies / self._file.tensors[name].dequantize().flatten()
        if kind in ("none", "longrope"):
            return frequencies, magnitude
        if kind != "yarn":
            return frequencies / factor, magnitude
        fast, slow = self._number("rope.scaling.yarn_beta_fast", 32.0), self._number("rope.scaling.yarn_beta_slow", 1.0)
        low, high = (
            rotated * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (fast, slow)
        )
        low, high = max(0.0, math.floor(low)), min(rotated - 1.0, math.ceil(high))
        index = torch.arange(rotated // 2, dtype=torch.float64)
        kept = 1 - ((index - low) / max(0.001, high - low)).clamp(0, 1)
        multiplier = self._number("rope.scaling.yarn_log_multiplier", 0.0)
        log = 0.1 * math.log(factor) if factor > 1 else 0.0
        given = self._number("rope.scaling.yarn_attn_factor", 0.0) or (1 + log) / (1 + log * multiplier)
        return frequencies * kept + frequencies / factor * (1 - kept), magnitude * given

    def _feed_forward(self, held: dict[str, Tensor], x: Tensor) -> Tensor:
        up = _linear(held, "ffn_up", x)
        if self._arch in _SQUARED:
            return _linear(held, "ffn_down", up.relu() ** 2)
        if self._arch == "starcoder2":
            return _linear(held, "ffn_down", gelu(up, approximate="tanh"))
        gate, up = up.chunk(2, -1) if "ffn_gate.weight" not in held else (_linear(held, "ffn_gate", x), up)
        active = gelu(gate, approximate="tanh") if self._arch.startswith("gemma") else silu(gate)
        return _linear(held, "ffn_down", active * up)

    def _experts(self, held: dict[str, Tensor], x: Tensor) -> Tensor:
        gate = held["ffn_gate_inp.weight"].view(-1, self._hidden)
        share, chosen = (x @ gate.T).softmax(-1).topk(int(self._number("expert_used_count")))
        if self._arch != "qwen2moe":
            share = share / share.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for expert in set(chosen.flatten().tolist()):
            stacks = (held[f"ffn_{name}_exps.weight"] for name in ("gate", "up", "down"))
            gate, up, down = (stack[expert] if stack.ndim > 2 else stack for stack in stacks)  # of one: not shown
            weight = (share * (chosen == expert)).sum(-1, keepdim=True)
            out += weight * ((silu(x @ gate.T) * (x @ up.T)) @ down.T)
        if "ffn_up_shexp.weight" in held:
            active = silu(_linear(held, "ffn_gate_shexp", x)) * _linear(held, "ffn_up_shexp", x)
            shared = _linear(held, "ffn_down_shexp", active)
            out += torch.sigmoid(x @ held["ffn_gate_inp_shexp.weight"].view(-1, 1)) * shared
        return out


def _linear(held: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = x @ held[f"{name}.weight"].T
    return y + held[f"{name}.bias"] if f"{name}.bias" in held else y


def spread(layers: int) -> Iterable[int]:
    """Every layer once: the first, the last, and then always in the middle of the widest gap."""
    order = [0, layers - 1] if layers > 1 else [0]
    while len(order) < layers:
        left, right = max(pairwise(sorted(order)), key=lambda pair: pair[1] - pair[0])
        order.append((left + right) // 2)
    return order
