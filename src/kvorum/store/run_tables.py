"""The tables of the store of runs, and how each version of them comes from the one before."""

from __future__ import annotations

import json

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    insert,
    literal,
    select,
)

NOBODY = "default"
"""Who owns what nobody says is anybody's, as all that was stored before there were owners."""
UNFINISHED = ("queued", "running", "paused")


class AnyText(TypeDecorator[str]):
    """Text with whatever a model may write in it. PostgreSQL has neither NUL nor lone surrogates: there it is JSON."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """To the database."""
        return value if value is None or dialect.name == "sqlite" else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """From the database."""
        return value if value is None or dialect.name == "sqlite" else str(json.loads(value))


metadata = MetaData()
runs = Table(
    "runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("created", Float(53), nullable=False),
    Column("spec", Text, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("status", String, nullable=False),
    Column("ticks", Integer, nullable=False, server_default="0"),
    Column("events", Integer, nullable=False, server_default="0"),
    Column("ledger", Text),
    Column("outcome", String),
    Column("answer", AnyText),
    Column("spent", String),
    Column("error", Text),
    Column("parent", Text),
)
Index("runs_created", runs.c.created.desc(), runs.c.id.desc())
events = Table(
    "events",
    metadata,
    Column("run", ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)
claims = Table(
    "claims",
    metadata,
    Column("run", ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("holder", String, nullable=False),
    Column("until", Float(53), nullable=False),
    Index("claims_until", "until"),
)
"""Which server goes on with a run that is not over, and until when it does without saying so again."""

owners = Table(
    "run_owners",
    metadata,
    Column("run", ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("owner", String, nullable=False, index=True),
)
"""Whose a run is; without a line it is nobody's."""


def _first(connection: Connection) -> None:
    metadata.create_all(connection, [runs, events])


def _second(connection: Connection) -> None:
    """Runs are claimed: those that are not over by nobody yet."""
    metadata.create_all(connection, [claims])
    free = select(runs.c.id, literal(""), literal(0.0)).where(runs.c.status.in_(UNFINISHED))
    connection.execute(insert(claims).from_select(["run", "holder", "until"], free))


def _third(connection: Connection) -> None:
    """Runs have owners: those there are have nobody."""
    metadata.create_all(connection, [owners])


STEPS = (_first, _second, _third)
