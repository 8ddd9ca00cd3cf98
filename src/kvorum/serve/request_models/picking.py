"""How a reply's tokens are picked: the same fields on every route whose model writes."""

from __future__ import annotations

import secrets
from typing import TypeVar

from pydantic import Field, StrictInt

from kvorum.sampling.grammar import Grammar
from kvorum.sampling.sampling import Sampling
from kvorum.serve.request_models.base import Biases, Factor, Number, Penalty, Seed, Share, StrictRequest

Form = TypeVar("Form", bound="Picking")


class Picking(StrictRequest):
    """OpenAI's fields, and those of vLLM and llama-server beside them; what is left out has its usual value."""

    temperature: Number | None = Field(None, ge=0, le=100)
    top_p: Share | None = None
    top_k: StrictInt | None = Field(None, ge=-1, lt=2**31)
    min_p: Share | None = None
    seed: Seed | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Factor | None = None
    dry_multiplier: Number | None = Field(None, ge=0, le=100)
    dry_base: Number | None = Field(None, ge=1, le=100)
    dry_allowed_length: StrictInt | None = Field(None, ge=1, lt=2**31)
    logit_bias: Biases | None = None

    def told_to(self, form: Form) -> Form:
        """``form`` with what is said here of how tokens are picked."""
        return form.model_copy(update={name: getattr(self, name) for name in Picking.model_fields})

    def sampling(
        self, *, temperature: float, top_p: float, seed: int | None = None, grammar: Grammar | None = None
    ) -> Sampling:
        """How tokens are to be picked; ``temperature`` and ``top_p`` where the request says nothing."""
        usual = Sampling()
        return Sampling(
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=top_p if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            seed=seed,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            dry_multiplier=self.dry_multiplier or 0.0,
            dry_base=self.dry_base or usual.dry_base,
            dry_allowed_length=self.dry_allowed_length or usual.dry_allowed_length,
            logit_bias={int(token): value for token, value in (self.logit_bias or {}).items()},
            grammar=grammar,
        )

    def seed_or_fresh(self) -> int:
        """The request's seed as one that draws take, or a fresh one."""
        return secrets.randbits(31) if self.seed is None else self.seed
