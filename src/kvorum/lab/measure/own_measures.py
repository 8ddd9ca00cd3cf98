"""What a program measured itself: the product of its run says it, and each measure is a column of the study's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

OWN = "own: "
"""What the names of such columns begin with."""


@runtime_checkable
class Measured(Protocol):
    """A product with measures; None where one says nothing of this run."""

    def measures(self) -> Mapping[str, float | None]:
        """By name."""


def own_measures(product: object) -> dict[str, float | None]:
    """As columns of the record."""
    return (
        {f"{OWN}{name}": value for name, value in product.measures().items()} if isinstance(product, Measured) else {}
    )
