"""The tokens of a run, counted for who has asked for it, tick by tick."""

from __future__ import annotations

from dataclasses import dataclass

from kvorum.serve.keys.caller import Caller
from kvorum.store.events import Event


@dataclass(slots=True)
class Spent:
    """``tokens``: how many have been counted for ``caller`` so far."""

    caller: Caller
    tokens: int = 0

    def hear(self, event: Event, *, again: bool = False) -> None:
        """Count what an event says that the run has cost by now; ``again``: that was paid for when it first was."""
        if event["event"] in ("tick", "end"):
            ledger = event["ledger"]
            total = ledger.get("prefill", 0) + ledger.get("decoded", 0) + ledger.get("latent", 0)
            if total > self.tokens:
                if not again:
                    self.caller.spend(total - self.tokens)
                self.tokens = total
