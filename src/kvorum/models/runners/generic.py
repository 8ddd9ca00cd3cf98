"""The generic runner: any transformers model that the probe accepts, through the attention seam."""

from __future__ import annotations

from torch import Tensor, nn

from kvorum.attention.kernel import AttentionKernel
from kvorum.attention.plan import Plan
from kvorum.attention.tap import Tap
from kvorum.models import seam
from kvorum.models.runners.runner import ModelRunner, RunnerSetup
from kvorum.models.seam import Forward


class GenericRunner(ModelRunner):
    """Runs the model's own modules; only attention is replaced."""

    name = "generic"

    def __init__(self, model: nn.Module, attention: AttentionKernel) -> None:
        self._model, self._attention = model, attention

    @classmethod
    def of(cls, setup: RunnerSetup) -> GenericRunner:
        """It covers every model that the probe accepts."""
        return cls(setup.model, setup.attention)

    def forward(
        self, plan: Plan, inputs: Tensor, wanted: Tensor, *, hidden: bool = False, tap: Tap | None = None
    ) -> Forward:
        """As ``ModelRunner.forward``."""
        attention = self._attention.bind(plan, tap)
        return seam.call(self._model, inputs, attention=attention, logits_index=wanted, hidden=hidden)
