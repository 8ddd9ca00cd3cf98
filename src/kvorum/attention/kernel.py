"""What an attention kernel is: the one base behind which reference, native and triton stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from kvorum.attention.plan import Plan
from kvorum.attention.rotary import Rotary
from kvorum.attention.tap import Tap
from kvorum.errors import KvorumError
from kvorum.kv import KVCache

if TYPE_CHECKING:
    from kvorum_native import Decoder


@dataclass(frozen=True, eq=False)
class AttentionSetup:
    """What a kernel works on: the cache, each layer's rotation and query heads, and the dtype of the queries."""

    cache: KVCache
    rotaries: Sequence[Rotary]
    q_heads: Sequence[int]
    dtype: torch.dtype


class Softmax(NamedTuple):
    """What a layer's softmax is over.

    ``scale``: factor on the scores. ``window``: distances from 0 to window - 1 are seen, None for all. ``softcap``: a
    score s becomes ``softcap * tanh(s / softcap)`` before the softmax. ``sinks``: ``[q_heads]`` logits that take part
    in each softmax once and carry no value.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None


class Attends(Protocol):
    """What a model's layers call in place of attention, in their order."""

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        """Store this layer's new keys and values and attend to everything that the rows see.

        Args:
            layer: which one. query: ``[q_heads, tokens, k_dim]``, keys: ``[kv_heads, tokens, k_dim]``, both unrotated
                (but scaled, where the model's RoPE has a constant factor). values: ``[kv_heads, tokens, v_dim]``.

        Returns:
            ``[tokens, q_heads, v_dim]`` in the dtype of the query.
        """


class BoundPlan(Attends, ABC):
    """One tick's plan on one cache."""

    def run_decoder(
        self,
        decoder: Decoder,
        x: Tensor,
        wanted: Tensor,
        logits: Tensor,
        hidden: Tensor | None,
        softmaxes: tuple[Softmax, ...],
    ) -> bool:
        """Run all layers of a compiled decoder in one call, if this kernel can; False: it cannot, nothing was done.

        Args:
            x: embeddings ``[tokens, hidden]``, overwritten. wanted: int64 ``[rows]``, the tokens whose results are
                written to ``logits [rows, vocab]`` and, if given, ``hidden [rows, hidden]`` (after the final norm).
            softmaxes: of each layer, without soft caps and sinks.
        """
        return False


class StaticPlan(BoundPlan):
    """A bound plan on buffers that stay where they are, so that a forward over them can be captured and replayed."""

    tokens: int
    """How many tokens the buffers have room for."""

    @abstractmethod
    def fill(self, plan: Plan) -> None:
        """Put another plan of the same key into the buffers."""

    @abstractmethod
    def forget(self) -> None:
        """Drop what was computed from the buffers: a forward begins anew."""


class AttentionKernel(ABC):
    """A way to attend over plans. A new one is a file with such a class and its import line in ``registry``."""

    name: ClassVar[str]
    preference: ClassVar[int] = 0
    """Of those that suit, "auto" takes the one with the highest."""
    has_static_plans: ClassVar[bool] = False
    """Whether it has ``static_key`` and ``bind_static``, for a runner that captures ticks."""

    def __init__(self, setup: AttentionSetup) -> None:
        self.setup = setup

    @classmethod
    def among(cls, things: Iterable[object]) -> list[type[AttentionKernel]]:
        """The kernels among a module's names."""
        return [thing for thing in things if isinstance(thing, type) and issubclass(thing, cls) and thing is not cls]

    @classmethod
    def lacks(cls, setup: AttentionSetup) -> KvorumError | None:
        """The error that says what stands between the kernel and this setup; None where it can be used."""
        return None

    @classmethod
    def suits(cls, setup: AttentionSetup) -> bool:
        """Whether "auto" may take it here, if it lacks nothing."""
        return True

    @abstractmethod
    def bind(self, plan: Plan, tap: Tap | None = None) -> BoundPlan:
        """Make one tick's plan ready. ``tap`` watches the attention; only a kernel that has one is given it."""

    def lacks_tap(self) -> KvorumError | None:
        """The error that says why the attention cannot be watched; None where it can."""
        return None

    def static_key(self, plan: Plan) -> Hashable | None:
        """What plans must agree in to share buffers; None: this one cannot stand in buffers that stay."""
        return None

    def bind_static(self, plan: Plan) -> StaticPlan:
        """Buffers for ``plan`` and all others of its key, holding it."""
        raise NotImplementedError
