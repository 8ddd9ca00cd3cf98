"""A dense oracle of ticks over views, for Llama-shaped models. Written from the design, it shares nothing with kvorum.

Every token that was ever written has a number and, per layer, one *unrotated* key and one value. A block is a list of
numbers (so moving tokens to another block copies numbers). What a new token sees is a list of (position in the view,
number), spelled out one by one; the keys are rotated to these positions anew for every row, and one plain softmax runs
over them. A key of the row's own block is seen if it stands there no later than the new token; all others are seen,
those that other rows write in the same tick included. Under a sliding window the distance must also be below it.

Ticks are recorded with their tokens and solved afterwards in one pass, layer by layer, which is the same arithmetic
because no layer's keys depend on a later layer.

Covers grouped heads, half-split RoPE, biases, tied embeddings, windows and rotations that differ by layer, norms of
heads and behind a layer's parts, scaled embeddings (Gemma 3 has all of these), embeddings as input. Not covered: other
rotations, soft caps, sinks, experts (``test_families.py`` has a slower judge for those).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Items = Sequence["tuple[Hashable, int, int | None] | tuple[Hashable, int, int | None, int | None] | int"]
"""What a row sees: (block, lo, hi or None for the open end, and the position at which it begins or None for behind all
before it), or a number of empty positions."""


class WideNorm(nn.Module):
    """RMS norm in the dtype of its input; transformers' own rounds to float32 on the way."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(weight.detach().clone()), eps

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.variance_epsilon).sqrt() * self.weight

    @classmethod
    def like(cls, norm: Any) -> WideNorm:
        """The same norm as one of transformers; Gemma's multiply by one more than their weights."""
        if type(norm).__name__.startswith("Gemma"):
            return cls(norm.weight + 1, norm.eps)
        return cls(norm.weight, norm.variance_epsilon)


def widen(model: Any) -> Any:
    """Replace every RMS norm of a Llama-shaped model by one that stays in float64."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(module, name, WideNorm.like(child))
    return model


@dataclass(frozen=True)
class _Row:
    numbers: Tensor  # the new tokens
    places: Tensor  # their positions in the view
    seen: Tensor  # numbers of all tokens in the view, those of this tick included
    at: Tensor  # their positions
    own: Tensor  # index in the row's own block, -1 for tokens of other blocks
    index: Tensor  # index in the own block of the new tokens


@dataclass(frozen=True)
class Solved:
    """For every token, by number: ``logits [tokens, vocab]`` and ``hidden [tokens, hidden]`` after the final norm."""

    logits: Tensor
    hidden: Tensor


class Oracle:
    """Records a program of ticks and moves over named blocks, then solves it densely in ``dtype``."""

    def __init__(self, model: Any, dtype: torch.dtype = torch.float64) -> None:
        self.model, self.dtype = model, dtype
        self.blocks: dict[Hashable, list[int]] = {}
        self.inputs: list[int | Tensor] = []
        self.rows: list[_Row] = []

    def tick(self, rows: Sequence[tuple[Items, Sequence[int] | Tensor]]) -> list[list[int]]:
        """Record a tick; returns the numbers of each row's new tokens."""
        new: list[list[int]] = []
        for items, tokens in rows:
            owner = items[-1]
            assert not isinstance(owner, int)
            assert owner[2] is None
            numbers = list(range(len(self.inputs), len(self.inputs) + len(tokens)))
            self.inputs += [token if isinstance(token, Tensor) else int(token) for token in tokens]
            self.blocks.setdefault(owner[0], []).extend(numbers)
            new.append(numbers)
        for (items, _), numbers in zip(rows, new, strict=True):
            self.rows.append(self._row(items, numbers))
        return new

    def _row(self, items: Items, numbers: list[int]) -> _Row:
        last = items[-1]
        assert not isinstance(last, int)
        position, seen, at, own = 0, [], [], []
        for item in items:
            if isinstance(item, int):
                position += item
                continue
            block, lo, hi, *place = item
            tokens = self.blocks.setdefault(block, [])
            shown = range(lo, len(tokens) if hi is None else hi)
            start = position if not place or place[0] is None else place[0]
            for there, index in enumerate(shown, start):
                seen.append(tokens[index])
                at.append(there)
                own.append(index if block == last[0] else -1)
            position = max(position, start + len(shown))
        length = len(self.blocks[last[0]])
        places = [at[seen.index(number, len(seen) - len(numbers))] for number in numbers]
        new = range(length - len(numbers), length)
        return _Row(*(torch.tensor(list(column)) for column in (numbers, places, seen, at, own, new)))

    def move(self, spans: Sequence[tuple[Hashable, int, int | None]], into: Hashable) -> None:
        """Record that tokens were appended to another block, keys and values unchanged but for the rotation."""
        moved = [number for block, lo, hi in spans for number in self.blocks.setdefault(block, [])[lo:hi]]
        self.blocks.setdefault(into, []).extend(moved)

    @torch.no_grad()
    def solve(self) -> Solved:
        """Run the model over everything recorded."""
        decoder, config = self.model.model, self.model.config
        table = decoder.embed_tokens.weight.to(self.dtype)
        scale = float(getattr(decoder.embed_tokens, "embed_scale", 1.0))
        x = torch.stack([table[t] * scale if isinstance(t, int) else t.to(self.dtype) for t in self.inputs])
        kinds = getattr(config, "layer_types", None) or ["every"] * len(decoder.layers)
        turns = {kind: self._turns(kind) for kind in set(kinds)}
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        factor = (getattr(config, "query_pre_attn_scalar", None) or width) ** -0.5
        for kind, layer in zip(kinds, decoder.layers, strict=True):
            att = layer.self_attn
            h = self._norm(x, layer.input_layernorm)
            query = _pairs(self._heads(h, att.q_proj, getattr(att, "q_norm", None), width))
            keys = _pairs(self._heads(h, att.k_proj, getattr(att, "k_norm", None), width))
            values = self._heads(h, att.v_proj, None, width)
            window = None if kind == "full_attention" else getattr(config, "sliding_window", None)
            mixed = torch.empty(len(x), query.shape[1] * width, dtype=self.dtype)
            with one_thread():  # thousands of small steps
                for row in self.rows:
                    found = _attend(row, query, keys, values, turns[kind], factor, window)
                    mixed[row.numbers] = found.flatten(1)
            mixed = self._linear(mixed, att.o_proj)
            if hasattr(layer, "pre_feedforward_layernorm"):  # two norms around each part
                x = x + self._norm(mixed, layer.post_attention_layernorm)
                h = self._feed_forward(self._norm(x, layer.pre_feedforward_layernorm), layer.mlp)
                x = x + self._norm(h, layer.post_feedforward_layernorm)
            else:
                x = x + mixed
                x = x + self._feed_forward(self._norm(x, layer.post_attention_layernorm), layer.mlp)
        x = self._norm(x, decoder.norm)
        return Solved(self._linear(x, self.model.lm_head), x)

    def _turns(self, kind: str) -> Tensor:
        """What a rotated pair is multiplied by at each position, for any head: ``[positions, 1, width / 2]``."""
        rotary = self.model.model.rotary_emb
        frequencies = rotary.inv_freq if hasattr(rotary, "inv_freq") else getattr(rotary, f"{kind}_inv_freq")
        positions = torch.arange(1 + max(int(row.at.max()) for row in self.rows))
        angles = positions.to(self.dtype)[:, None] * frequencies.to(self.dtype)
        return torch.polar(torch.ones_like(angles), angles)[:, None]

    def _heads(self, x: Tensor, module: Any, norm: Any, width: int) -> Tensor:
        """``[n, heads, width]``, each head normed where the model does that."""
        heads = self._linear(x, module).unflatten(-1, (-1, width))
        return heads if norm is None else self._norm(heads, norm)

    def _feed_forward(self, x: Tensor, mlp: Any) -> Tensor:
        gate = self._linear(x, mlp.gate_proj)
        tanh = (2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3)  # Gemma's gelu
        gelu = "Gemma" in type(mlp).__name__
        gate = 0.5 * gate * (1 + torch.tanh(tanh)) if gelu else gate * torch.sigmoid(gate)
        return self._linear(gate * self._linear(x, mlp.up_proj), mlp.down_proj)

    def _linear(self, x: Tensor, module: Any) -> Tensor:
        y: Tensor = x @ module.weight.to(self.dtype).T
        return y if module.bias is None else y + module.bias.to(self.dtype)

    def _norm(self, x: Tensor, module: Any) -> Tensor:
        norm = module if isinstance(module, WideNorm) else WideNorm.like(module)
        size: Tensor = (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        return x / size * norm.weight.to(self.dtype)


@contextmanager
def one_thread() -> Iterator[None]:
    """Small products wait for each other longer than they take when threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pairs(x: Tensor) -> Tensor:
    """``[n, heads, width]`` to complex ``[n, heads, width / 2]``: RoPE turns feature i together with i + width / 2."""
    first, second = x.chunk(2, dim=-1)
    return torch.complex(first.contiguous(), second.contiguous())


def _attend(
    row: _Row, query: Tensor, keys: Tensor, values: Tensor, turns: Tensor, factor: float, window: int | None
) -> Tensor:
    """One softmax per new token over everything it sees: ``[new, heads, width]``."""
    q = query[row.numbers] * turns[row.places]
    k = keys[row.seen] * turns[row.at]
    v = values[row.seen]
    group = q.shape[1] // k.shape[1]
    q = q.unflatten(1, (k.shape[1], group))  # query head h reads key head h // group
    scores = torch.einsum("nhgd,khd->nhgk", q, k.conj()).real * factor
    hidden = row.own[None] > row.index[:, None]
    if window is not None:
        hidden |= row.places[:, None] - row.at[None] >= window
    scores = scores.masked_fill(hidden[:, None, None], float("-inf"))
    return torch.einsum("nhgk,khd->nhgd", scores.softmax(-1), v).flatten(1, 2)
