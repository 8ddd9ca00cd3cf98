"""A toy engine with text: a tiny random Llama and a byte-level tokenizer with a few JSON merges.

And an independent oracle: a dense forward in which every query sees every key at a distance that the caller gives, and
a paper-and-pencil account of what is live, from which those distances come. Neither knows anything of kvorum.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engines import engine_of, model_of
from kvorum import Engine
from kvorum.backends.fake import FakeBackend

MERGES = [('"', "}"), ('"', ":"), ('":', '"'), ("t", "h"), ("Ġ", "a"), ('"', ","), ('",', '"'), ("{", '"'), ("}", "]")]


def tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes, some merges across the edges of JSON, and an end token (the last id)."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in MERGES), "<end>"]
    vocab = {piece: at for at, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=MERGES, fuse_unk=False))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")


VOCAB = 256 + len(MERGES) + 1


def model(
    dtype: torch.dtype = torch.float64, seed: int = 0, *, positions: int = 16384, vocab: int = VOCAB
) -> LlamaForCausalLM:
    """A random Llama with attention that is far from uniform; the last id of its vocabulary ends a text."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=vocab - 1,
        pad_token_id=None,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    made = LlamaForCausalLM(config)
    nn.Module.to(made, dtype)
    made.eval()
    with torch.no_grad():
        for parameter in made.parameters():
            drawn = torch.randn_like(parameter, dtype=torch.float64)  # the same weights whatever the dtype
            parameter.copy_(drawn * (0.2 if parameter.ndim > 1 else 0.3) + (parameter.ndim < 2))
    made.requires_grad_(False)
    return made


def engine(dtype: torch.dtype = torch.float32, seed: int = 0, **options: Any) -> Engine:
    """The toy as an engine. What is held against an oracle to the last digits asks for float64, to which plain torch
    attends in four times the time."""
    given = {"kv_tokens": 8192, "page_size": 4, **options}
    if dtype == torch.float32:
        return engine_of(f"toy-{seed}", lambda: model(dtype, seed), tokenizer(), **given)
    return Engine(model(dtype, seed), tokenizer(), **given)


def fake(*, kv_tokens: int = 8192, page_size: int = 4, max_positions: int | None = None, **options: Any) -> Engine:
    """An engine with the same tokenizer and no model, for tests of what a model adds nothing to."""
    backend = FakeBackend(
        VOCAB, kv_tokens=kv_tokens, page_size=page_size, ends=[VOCAB - 1], max_positions=max_positions
    )
    return Engine(backend, tokenizer(), **options)


def suited(program: str, **options: Any) -> Engine:
    """The toy for a program that reads the model's own weights, as latent steps do; for all others none is needed."""
    return engine(**options) if program == "relay" else fake(**options)


def llama(engine: Engine) -> LlamaForCausalLM:
    """The toy's own model."""
    model = model_of(engine)
    assert isinstance(model, LlamaForCausalLM)
    return model


def dense(llama: LlamaForCausalLM, ids: list[int], distance: Tensor) -> Tensor:
    """Logits ``[n, vocab]`` of a Llama over ``ids`` where query i sees key j at ``distance[i, j]``.

    A negative distance hides the key. Written out plainly, one attention score per pair; knows nothing of kvorum.
    """
    config, body = llama.config, llama.model
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    assert groups is not None
    size = config.hidden_size // heads
    frequency = body.rotary_emb.inv_freq.double()
    angle = distance.double()[..., None] * frequency  # [n, n, size / 2]
    cos, sin = angle.cos(), angle.sin()
    x = body.embed_tokens(torch.tensor(ids))
    for layer in body.layers:
        y, attention = layer.input_layernorm(x), layer.self_attn
        q = attention.q_proj(y).view(-1, heads, size)
        k = attention.k_proj(y).view(-1, groups, size).repeat_interleave(heads // groups, dim=1)
        v = attention.v_proj(y).view(-1, groups, size).repeat_interleave(heads // groups, dim=1)
        (qa, qb), (ka, kb) = q.chunk(2, -1), k.chunk(2, -1)
        same = torch.einsum("ihd,jhd->hijd", qa, ka) + torch.einsum("ihd,jhd->hijd", qb, kb)
        turned = torch.einsum("ihd,jhd->hijd", qa, kb) - torch.einsum("ihd,jhd->hijd", qb, ka)
        scores = (same * cos + turned * sin).sum(-1) / size**0.5
        weights = scores.masked_fill(distance < 0, float("-inf")).softmax(-1)
        x = x + attention.o_proj(torch.einsum("hij,jhd->ihd", weights, v).reshape(len(ids), -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    logits: Tensor = llama.lm_head(body.norm(x))
    return logits


def causal(count: int) -> Tensor:
    """The distances of a plain forward, ``[count, count]``."""
    at = torch.arange(count)
    return at[:, None] - at[None, :]


class Account:
    """What is live, token by token: ``live`` holds row numbers, or None where a position is empty."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.label: list[int | None] = []  # per row: the place in the log, None for a stub
        self.sees: list[dict[int, int]] = []  # per row: the rows it sees, and how far they are
        self.live: list[int | None] = []

    def feed(self, ids: list[int], labels: list[Any], live: list[int | None] | None = None) -> list[int | None]:
        """New rows at the end of ``live`` (default: all that is live); returns them."""
        live = self.live if live is None else live
        start = len(live)
        for token, label in zip(ids, labels, strict=True):
            live.append(len(self.ids))
            self.ids.append(token)
            self.label.append(label)
            self.sees.append({other: len(live) - 1 - at for at, other in enumerate(live) if other is not None})
        return live[start:]

    def position(self, label: int) -> int:
        """Where the log's token ``label`` stands."""
        return next(at for at, row in enumerate(self.live) if row is not None and self.label[row] == label)

    def prune(self, start: int, end: int, mode: str, stub: list[int], *, encode: bool = True) -> list[int | None]:
        """Positions ``start`` to ``end`` go; returns what stood there."""
        head, gone, tail = self.live[:start], self.live[start:end], self.live[end:]
        new = self.feed(stub, [None] * len(stub), list(head))[: len(stub)]
        if mode == "gap":
            new += [None] * (len(gone) - len(stub))
        self.live = head + new + tail
        if mode == "reencode" and encode:
            self.again(start + len(stub))
        return gone

    def restore(self, start: int, width: int, gone: list[int | None], mode: str) -> None:
        """What stood there comes back in the place of ``width`` positions."""
        self.live = self.live[:start] + gone + self.live[start + width :]
        if mode == "reencode":
            self.again(start)

    def again(self, start: int) -> None:
        """Everything from ``start`` on is encoded anew."""
        tail = [row for row in self.live[start:] if row is not None]
        del self.live[start:]
        self.feed([self.ids[row] for row in tail], [self.label[row] for row in tail])

    def logits(self, llama: LlamaForCausalLM) -> Tensor:
        """``[rows, vocab]``, by the dense forward."""
        distance = torch.full((len(self.ids), len(self.ids)), -1)
        for row, seen in enumerate(self.sees):
            for other, far in seen.items():
                distance[row, other] = far
        return dense(llama, self.ids, distance)
