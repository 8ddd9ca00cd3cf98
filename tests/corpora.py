"""For tests over a corpus of cases: `make test` takes the sample, `make test-slow` all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import pytest


class CorpusCase(Protocol):
    """A case with its name, and whether it belongs to the sample."""

    @property
    def name(self) -> str: ...

    @property
    def sample(self) -> bool: ...


def marked(cases: Iterable[CorpusCase]) -> list[Any]:
    """The cases as parameters of a test, slow but for the sample."""
    return [pytest.param(case, id=case.name, marks=() if case.sample else pytest.mark.slow) for case in cases]
