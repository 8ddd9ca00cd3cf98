"""The tables of a memory, in an SQLite file or a PostgreSQL database; its index of words is in ``words``."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, Float, Index, Integer, MetaData, String, Table, Text, text

from kvorum.errors import StoreFailed
from kvorum.store.database.database import Database
from kvorum.store.database.dialect import Dialect
from kvorum.store.database.postgresql import PostgresDatabase
from kvorum.store.database.sqlite import SqliteFile
from kvorum.store.memory.words import PostgresWords, SqliteWords, Words
from kvorum.versions import MEMORY

metadata = MetaData()
entries = Table(
    "entries",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(12), nullable=False, unique=True),
    Column("text", Text, nullable=False),
    Column("source", String(80), nullable=False),
    Column("time", Float(53), nullable=False),
    Column("namespace", String(64), nullable=False),
    Column("supersedes", String(12)),
    Column("superseded_by", String(12)),
    Index("entries_newest", "namespace", "superseded_by", "time", "number"),
    Index("entries_superseded", "superseded_by"),
    sqlite_autoincrement=True,
)


def open_memory(where: Path | str) -> tuple[Database, Words]:
    """The file ``where``, made where it is not there, readable by its owner alone; or the database of that URL.

    Raises:
        StoreFailed: it cannot be opened or is damaged; it is left as it is. BadRequest: it is of a later version, or no
            URL of a database. MissingExtra.
    """
    if isinstance(where, Path):
        words: Words = SqliteWords()
        dialect: Dialect = SqliteFile(where, pragmas=["secure_delete=ON"], pooled=False, private=True)
    else:
        words, dialect = PostgresWords(), PostgresDatabase(where, pooled=False)

    def make(connection: Connection) -> None:
        metadata.create_all(connection)
        words.make(connection)

    return Database(dialect, MEMORY, [make], refused=StoreFailed, failed=StoreFailed), words


def wait_for_writers(connection: Connection) -> None:
    """Be the only one that writes until the transaction ends, so that what it reads is what it changes. In SQLite that
    is so from its beginning."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE entries IN SHARE ROW EXCLUSIVE MODE"))  # readers do not wait
