"""A backend without a model: logits that are a function of the visible tokens and their distances, and nothing else.

For tests of what stands above the seam (scheduler, runs, programs, server), where a model adds nothing but time. What a
row sees decides its logits, so a wrong view, a wrong distance or a token that is seen too early changes them. A latent
row counts by its numbers. Not covered: taps, and anything about the quality of text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kvorum.attention.plan import Plan
from kvorum.attention.rotary import Rotary
from kvorum.backends.backend import Done, Work
from kvorum.errors import BadRequest, KvorumError, UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.kv import CacheConfig, CacheShape
from kvorum.models.shape import LayerShape, ModelShape
from kvorum.sampling.sampler import draw_all

_PRIME = 2_147_483_647
"""All sums are taken modulo this number, so that they do not depend on the order of their terms."""


class FakeBackend:
    """Holds one number per slot: what its token is. Logits lie from -4 to 4.

    Args:
        vocab, hidden: of the model that it stands for. kv_tokens, page_size: of its cache.
        ends: ids that end a text. max_positions: see ``ModelShape``.
    """

    def __init__(
        self,
        vocab: int = 256,
        *,
        hidden: int = 8,
        kv_tokens: int = 65536,
        page_size: int = 16,
        ends: Sequence[int] = (),
        max_positions: int | None = None,
    ) -> None:
        layer = LayerShape(Rotary.none(), q_heads=1, kv_heads=1, k_dim=1, v_dim=1, window=None)
        self.shape = ModelShape((layer,), vocab, hidden, max_positions, None)
        self.cache = CacheConfig((CacheShape(1, 1, 1),), kv_tokens, page_size, torch.float64)
        self.dtype = torch.float64
        self.fingerprint = f"fake {vocab} {hidden}"
        self.rounding = ""
        self.ends = frozenset(ends)
        self._tokens = torch.zeros(self.cache.slots, dtype=torch.int64)
        self._words = torch.arange(1, vocab + 1) * 48_271 % _PRIME

    def forward(self, work: Work) -> Done:
        """Store the new tokens, then let each see what its view shows."""
        tokens = torch.tensor(work.ids)
        for start, rows in work.embeds:
            tokens[start : start + len(rows)] = (rows.double().sum(1) * 1e6).round().long() % _PRIME
        self._tokens[work.plan.slots] = tokens + 1
        state = self._seen(work.plan)[work.wanted]
        logits = (state[:, None] * self._words % _PRIME).double() / _PRIME * 8 - 4
        hidden = (state[:, None] * torch.arange(1, self.shape.hidden + 1) % _PRIME).double() / _PRIME
        lasts = logits if work.lasts is None else logits[work.lasts]
        return Done(lambda: logits, hidden if work.hidden else None, draw_all(lasts, work.draws()))

    def _seen(self, plan: Plan) -> Tensor:
        """Of each new token a number that every visible token and its distance have a part in: int64 ``[tokens]``."""
        state = torch.ones(plan.tokens, dtype=torch.int64)
        for segment in plan.segments:
            distance = segment.delta[:, None] - torch.arange(segment.first, segment.first + segment.length)
            terms = (self._tokens[segment.slots] * 16_807 + distance.clamp_min(0) * 69_621) % _PRIME
            terms = (terms * terms % _PRIME).where(distance >= 0, 0).sum(1)
            picked = slice(None) if segment.tokens is None else segment.tokens
            state[picked] = (state[picked] + terms) % _PRIME
        return state * 44_497 % _PRIME

    def carry(self, source: Tensor, shift: Tensor, target: Tensor) -> None:
        """Copy tokens; there is nothing to turn."""
        self._tokens[target] = self._tokens[source]

    def read(self, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The tokens as keys, zeros as values."""
        keys = self._tokens[slots].double().view(1, -1, 1)
        return [(keys, torch.zeros_like(keys))]

    def write(self, slots: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Store what ``read`` returned."""
        self._tokens[slots] = layers[0][0].flatten().long()

    def imitate(self, kind: str, seed: int, source: Tensor, target: Tensor) -> None:
        """Tokens that say nothing of the source."""
        self._tokens[target] = 0 if kind == "zeroed" else seed + torch.arange(len(target))

    def lacks_tap(self) -> KvorumError | None:
        """There is no attention to watch."""
        return BadRequest("The fake backend has no attention to tap.")

    def lacks_latent(self) -> KvorumError | None:
        """None: rows of embeddings count by their numbers."""
        return None

    def lacks_speculation(self) -> KvorumError | None:
        """None: what a row sees decides its numbers, and nothing else."""
        return None

    def trouble(self) -> str | None:
        """None: nothing can break."""
        return None

    def module(self) -> nn.Module:
        """Always raises UnsupportedModel: there is no model behind it."""
        raise UnsupportedModel("The fake backend has no model whose weights could be read.")

    def about(self) -> dict[str, Json]:
        """Traces name it, and that there are no weights."""
        return {"backend": "fake", "weights": "none"}

    def close(self) -> None:
        """There is nothing to let go of."""
