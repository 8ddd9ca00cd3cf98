"""Who has sent a request: whose is what it makes, whose turn it is, and what its key has left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kvorum.serve.errors import ApiError
from kvorum.serve.keys.allowance import Allowance
from kvorum.store.run_tables import NOBODY


@dataclass(frozen=True, slots=True)
class Caller:
    """``owner``: the name of the key, whose is what the request makes and who alone sees it. ``address`` and ``user``:
    whose turn it is within the key. ``models``: those that it may ask; none: all."""

    owner: str = NOBODY
    address: str = ""
    user: str = ""
    models: tuple[str, ...] = ()
    allowance: Allowance | None = field(default=None, compare=False, repr=False)

    def named(self, user: str | None) -> Caller:
        """The same for the user that a request names."""
        return replace(self, user=user) if user else self

    @property
    def turn(self) -> str:
        """One client of those that take turns."""
        return "\0".join((self.owner, self.address, self.user))

    def spend(self, tokens: int) -> None:
        """Count tokens that were computed for it."""
        if self.allowance is not None:
            self.allowance.spend(tokens)

    def may_ask(self, model: str) -> bool:
        """Whether its key is for that model."""
        return not self.models or model in self.models

    def check_model(self, model: str) -> None:
        """Raises ApiError 403 for a model that its key is not for."""
        if not self.may_ask(model):
            message = f"The key {self.owner} is not for the model {model}; it is for: {', '.join(self.models)}."
            raise ApiError(403, message, code="model_not_allowed", param="model")
