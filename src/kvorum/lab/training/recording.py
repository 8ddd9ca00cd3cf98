"""Recording what an engine computes: a backend that notes every tick's plan and hands it on.

What a program does with views becomes a ``TeamTrace``, whatever it does: prompts, private parts, steps that move to a
history, gaps, placed spans. Over the backend without a model (``backends.fake``) a recording costs next to nothing.

    backend = Recording(FakeBackend(vocab=256))
    engine = Engine(backend, tokenizer)
    ...                                     # any ticks, by hand or by a program
    trace = backend.trace()

Not covered: latent steps, imitated blocks and blocks from disk, which have no tokens of this recording.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kvorum.backends.backend import Backend, Done, Work
from kvorum.errors import BadRequest, KvorumError
from kvorum.jsontypes import Json
from kvorum.kv import CacheConfig
from kvorum.lab.training.team_trace import Numbers, TeamTrace, matrix
from kvorum.models.shape import ModelShape

_NOBODY = -1
"""In place of a token's number: nothing that was written in this recording."""


class Recording:
    """A ``Backend`` that stands before another one and notes what its ticks see."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self._ids: list[int] = []
        self._seen: list[tuple[Numbers, Numbers, Numbers]] = []
        self._number = np.full(inner.cache.slots, _NOBODY, dtype=np.int64)

    def trace(self) -> TeamTrace:
        """Everything that was written since the beginning.

        Raises:
            BadRequest: a token stands twice in one view.
        """
        return TeamTrace(list(self._ids), matrix(self._seen, len(self._ids)))

    def forward(self, work: Work) -> Done:
        """Note the tick and have it computed.

        Raises:
            BadRequest: it has latent steps, or sees what was not written in this recording.
        """
        if work.embeds:
            raise BadRequest("A latent step has no token that could be trained on; record programs without them.")
        first = len(self._ids)
        numbers = np.arange(first, first + len(work.ids))
        self._ids += work.ids
        self._number[work.plan.slots.numpy()] = numbers
        for segment in work.plan.segments:
            if segment.length == 0:
                continue
            slots = segment.slots if isinstance(segment.slots, slice) else segment.slots.numpy()
            keys = self._number[slots].copy()  # slots are written to again
            if (keys == _NOBODY).any():
                raise BadRequest("A view shows an imitated block, or one that was there before the recording began.")
            queries = numbers if segment.tokens is None else first + segment.tokens.numpy()
            places = np.arange(segment.first, segment.first + segment.length)
            self._seen.append((queries, keys, segment.delta.numpy()[:, None] - places))
        return self.inner.forward(work)

    def carry(self, source: Tensor, shift: Tensor, target: Tensor) -> None:
        """A copy is the same token at another place."""
        self._number[target.numpy()] = self._number[source.numpy()]
        self.inner.carry(source, shift, target)

    def imitate(self, kind: str, seed: int, source: Tensor, target: Tensor) -> None:
        """What is imitated is nobody's token."""
        self._number[target.numpy()] = _NOBODY
        self.inner.imitate(kind, seed, source, target)

    def write(self, slots: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """What comes from disk was not written here."""
        self._number[slots.numpy()] = _NOBODY
        self.inner.write(slots, layers)

    # -- handed on as it is ------------------------------------------------------------------------------------

    @property
    def shape(self) -> ModelShape:
        """The inner backend's."""
        return self.inner.shape

    @property
    def cache(self) -> CacheConfig:
        """The inner backend's."""
        return self.inner.cache

    @property
    def dtype(self) -> torch.dtype:
        """The inner backend's."""
        return self.inner.dtype

    @property
    def fingerprint(self) -> str:
        """The inner backend's."""
        return self.inner.fingerprint

    @property
    def rounding(self) -> str:
        """The inner backend's."""
        return self.inner.rounding

    @property
    def ends(self) -> frozenset[int]:
        """The inner backend's."""
        return self.inner.ends

    def read(self, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """As the inner backend."""
        return self.inner.read(slots)

    def lacks_tap(self) -> KvorumError | None:
        """As the inner backend."""
        return self.inner.lacks_tap()

    def lacks_latent(self) -> KvorumError | None:
        """Latent steps are not recorded."""
        return BadRequest("A latent step has no token that could be trained on; record programs without them.")

    def lacks_speculation(self) -> KvorumError | None:
        """A recording has each token once, where it came."""
        return BadRequest("Nothing is computed ahead while a run is recorded for training; leave `speculate` out.")

    def trouble(self) -> str | None:
        """As the inner backend."""
        return self.inner.trouble()

    def module(self) -> nn.Module:
        """The inner backend's model."""
        return self.inner.module()

    def about(self) -> dict[str, Json]:
        """As the inner backend."""
        return self.inner.about()

    def close(self) -> None:
        """Close the inner backend."""
        self.inner.close()
