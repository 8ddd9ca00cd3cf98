"""What is drawn from the rows of a tick, and the masks of those whose texts follow a grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeAlias

from kvorum.engine.row import CheckedRow
from kvorum.errors import BadRequest, GrammarError
from kvorum.sampling.matcher import Masks, begin_masks
from kvorum.sampling.sampling import Draw, Pick

Picked: TypeAlias = "Pick | BadRequest | GrammarError | None"
"""A row's drawn token, or why there is none; None: none was asked for."""


class Asked:
    """What is drawn from the rows of a tick. Masks of those with a grammar are made from its beginning on."""

    def __init__(self, rows: Sequence[CheckedRow]) -> None:
        self._rows = rows
        self._held = [at for at, row in enumerate(rows) if row.matcher is not None and row.draw is not None]
        self._errors: dict[int, GrammarError] = {}

    def __enter__(self) -> Asked:
        matchers = [row.matcher for row in self._rows if row.matcher is not None and row.draw is not None]
        self._masks: Masks = begin_masks(matchers) if matchers else tuple
        return self

    def __exit__(self, *error: BaseException | type[BaseException] | TracebackType | None) -> None:
        self._masks()  # nobody may touch the matchers before

    def draws(self) -> list[Draw | None]:
        """What to draw from each row; waits until the masks are there."""
        draws = [row.draw for row in self._rows]
        for at, found in zip(self._held, self._masks(), strict=True):
            draw = draws[at]
            if isinstance(found, GrammarError):
                self._errors[at] = found
            elif draw is not None:
                draws[at] = replace(draw, allowed=found)
        return draws

    def told(self, picks: Sequence[Picked]) -> Sequence[Picked]:
        """The picks, and where a grammar could not be followed, why."""
        return [self._errors.get(at, pick) for at, pick in enumerate(picks)] if self._errors else picks
