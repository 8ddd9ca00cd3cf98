"""What differs between databases: how one is opened, begun with, brought to its newest version, and how it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from sqlalchemy import ColumnElement, Connection, Engine
from sqlalchemy.exc import DBAPIError

from kvorum.versions import Form

Step: TypeAlias = Callable[[Connection], None]
"""What brings tables from one version to the next, within one transaction with all other steps."""


class Dialect(Protocol):
    """One kind of database."""

    @property
    def shared(self) -> bool:
        """Whether several servers may have it at a time."""

    @property
    def place(self) -> str:
        """Where it is, for people; without a password."""

    def open(self, form: Form, steps: Sequence[Step]) -> Engine:
        """Connect, and take all steps that have not been taken. Raises DBAPIError; the form's error; OSError."""

    def begin(self, engine: Engine, writes: bool) -> Connection:
        """A connection in a transaction; one that ``writes`` waits for other writers. Raises DBAPIError."""

    def clock(self) -> ColumnElement[float]:
        """Seconds since 1970 by the one clock that all who share it go by."""

    def why(self, error: DBAPIError, what: str) -> str:
        """What has gone wrong with ``what`` and what to do, as a sentence."""
