"""What a model runner is: one way to run a model's layers over a tick, with an attention kernel in them.

The generic one, which covers every model that the probe accepts, is here too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from kvorum.attention.kernel import AttentionKernel
from kvorum.attention.plan import Plan
from kvorum.attention.tap import Tap
from kvorum.models.forward import Forward
from kvorum.models.shape import ModelShape


@dataclass(frozen=True, eq=False)
class RunnerSetup:
    """What a runner is made for: a transformers model, its probed shape, and the attention kernel."""

    model: nn.Module
    shape: ModelShape
    attention: AttentionKernel


class ModelRunner(ABC):
    """A way to run a model. A new one is a file with such a class and its import line in ``registry``."""

    name: ClassVar[str]
    preference: ClassVar[int] = 0
    """Of those that cover a model, "auto" takes the one with the highest."""

    @classmethod
    def among(cls, things: Iterable[object]) -> list[type[ModelRunner]]:
        """The runners among a module's names."""
        return [thing for thing in things if isinstance(thing, type) and issubclass(thing, cls) and thing is not cls]

    @classmethod
    @abstractmethod
    def of(cls, setup: RunnerSetup) -> ModelRunner | None:
        """A runner for this setup, or None where it does not cover it."""

    @abstractmethod
    def forward(
        self, plan: Plan, inputs: Tensor, wanted: Tensor, *, hidden: bool = False, tap: Tap | None = None
    ) -> Forward:
        """Run one tick: all new keys and values are stored, and every new token attends as ``plan`` says.

        Args:
            inputs: the packed new tokens, ids int64 ``[tokens]`` or embeddings ``[tokens, hidden]``.
            wanted: int64 ``[rows]``, the tokens whose logits are wanted, in that order.
            hidden: also return their hidden states after the final norm. tap: watches the attention.

        Returns:
            Logits ``[rows, vocab]``, and hidden states ``[rows, hidden]`` if asked for. Without gradients.
        """


class GenericRunner(ModelRunner):
    """Runs the model's own modules; only attention is replaced."""

    name = "generic"

    def __init__(self, model: nn.Module, attention: AttentionKernel) -> None:
        from kvorum.models import seam  # which imports transformers: seconds that packed weights do without

        self._model, self._attention, self._call = model, attention, seam.call

    @classmethod
    def of(cls, setup: RunnerSetup) -> GenericRunner:
        """It covers every model that the probe accepts."""
        return cls(setup.model, setup.attention)

    def forward(
        self, plan: Plan, inputs: Tensor, wanted: Tensor, *, hidden: bool = False, tap: Tap | None = None
    ) -> Forward:
        """As ``ModelRunner.forward``."""
        attention = self._attention.bind(plan, tap)
        return self._call(self._model, inputs, attention=attention, logits_index=wanted, hidden=hidden)
