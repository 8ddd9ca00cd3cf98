"""What computes a tick: the one seam between the engine and whatever holds a model and its cache.

The engine plans in numbers (slots, positions, ids) and hands a ``Work`` to its backend; weights, cache tensors,
rotation, attention and draws are behind the seam, in this process or in others. ``backends.local`` is the first
implementation, ``backends.fake`` an in-memory one for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from kvorum.attention.plan import Plan
from kvorum.attention.tap import Tap
from kvorum.errors import BadRequest, KvorumError
from kvorum.jsontypes import Json
from kvorum.kv import CacheConfig
from kvorum.models.shape import ModelShape
from kvorum.sampling.sampling import Draw, Pick


@dataclass(slots=True, eq=False)
class Work:
    """One tick, as the executor hands it to a backend.

    ``plan``: where each new token is stored and what it sees. ``ids``: of all new tokens, packed row behind row;
    ``LATENT`` where an embedding is given instead. ``embeds``: ``(first token, [n, hidden])`` of latent rows.
    ``wanted``: int64 ``[n]``, the tokens whose logits are wanted. ``lasts``: which of the wanted are the rows' last
    tokens; None: all of them, in order. ``hidden``: whether their hidden states are wanted. ``draws`` tells
    what to draw from each row's last token; it waits for masks that are made meanwhile, so ask it last. ``tap``: on the
    CPU, filled by the tick.
    """

    plan: Plan
    ids: Sequence[int]
    embeds: Sequence[tuple[int, Tensor]]
    wanted: Tensor
    lasts: Tensor | None = None
    hidden: bool = False
    draws: Callable[[], Sequence[Draw | None]] = tuple
    tap: Tap | None = None


@dataclass(slots=True, eq=False)
class Done:
    """What a backend returns of a tick.

    ``logits`` fetches the logits ``[wanted, vocab]``, which may stay where the model is until somebody reads them.
    ``hidden`` ``[wanted, hidden]`` after the final norm, if asked for. ``picks``: per row the drawn token, the error
    where none was left, or None where none was asked for. ``shares``: of the tap, ``[layers, tokens, groups]``.
    """

    logits: Callable[[], Tensor]
    hidden: Tensor | None = None
    picks: Sequence[Pick | BadRequest | None] = ()
    shares: Tensor | None = None


class Backend(Protocol):
    """A model and its cache, wherever they are. Slots are numbers that the engine's page pool hands out."""

    @property
    def shape(self) -> ModelShape:
        """Layers, vocabulary, hidden size and limits of the model."""

    @property
    def cache(self) -> CacheConfig:
        """Layers, size, page size and dtype of the cache."""

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""

    @property
    def fingerprint(self) -> str:
        """Which weights make its keys and values, as hex: a saved block is good for this fingerprint alone."""

    @property
    def rounding(self) -> str:
        """What else decides how keys and values are rounded: kernels and, where they have a part, threads."""

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end a text by the model's generation configuration."""

    def forward(self, work: Work) -> Done:
        """Compute a tick. Every new key and value is stored before any token attends."""

    def carry(self, source: Tensor, shift: Tensor, target: Tensor) -> None:
        """Copy slots ``source [n]`` to ``target [n]`` in all layers, each key turned by its ``shift [n]``."""

    def read(self, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values ``[kv_heads, n, dim]`` of every layer at ``slots [n]``, on the CPU."""

    def write(self, slots: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Store what ``read`` returned at ``slots [n]``."""

    def imitate(self, kind: str, seed: int, source: Tensor, target: Tensor) -> None:
        """Fill slots ``target [n]`` with an imitation of one block's ``source [n]``; see ``kv.derived``."""

    def lacks_tap(self) -> KvorumError | None:
        """The error that says why attention cannot be watched here; None where it can."""

    def lacks_latent(self) -> KvorumError | None:
        """The error that says why rows of embeddings cannot be computed here; None where they can."""

    def lacks_speculation(self) -> KvorumError | None:
        """The error that says why a row's numbers may change with how many tokens share a tick; None: they never do."""

    def trouble(self) -> str | None:
        """Why nothing can be computed here any more, as far as it is seen without computing; None: nothing is wrong."""

    def module(self) -> nn.Module:
        """The model itself, for whoever reads its weights.

        Raises:
            UnsupportedModel: it is not in this process.
        """

    def about(self) -> dict[str, Json]:
        """What a trace says of it, but for dtypes and sizes: what else has a part in how its numbers are rounded."""

    def close(self) -> None:
        """Let go of processes and memory. The backend cannot be used afterwards. Of processes that are waited for on
        another thread, as those that stand still, that wait ends with an error."""
