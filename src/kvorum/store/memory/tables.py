"""The tables of a memory, through SQLAlchemy, and what SQLite alone has: its log, its locks, its index of words.

Another database needs the same table ``entries`` and another ``words``: nothing else here or above names SQLite.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from kvorum.errors import StoreFailed
from kvorum.versions import MEMORY

WAIT = 30.0
"""Seconds for which a writer waits for others."""

metadata = MetaData()
entries = Table(
    "entries",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(12), nullable=False, unique=True),
    Column("text", Text, nullable=False),
    Column("source", String(80), nullable=False),
    Column("time", Float, nullable=False),
    Column("namespace", String(64), nullable=False),
    Column("supersedes", String(12)),
    Column("superseded_by", String(12)),
    Index("entries_newest", "namespace", "superseded_by", "time", "number"),
    Index("entries_superseded", "superseded_by"),
    sqlite_autoincrement=True,
)

_HELD = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_PRAGMAS = ("secure_delete=ON", "busy_timeout=30000")
_WORDS = "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(body, tokenize='porter unicode61 remove_diacritics 2')"


def open_file(path: Path) -> Engine:
    """The file, made where it is not there, readable by its owner alone.

    Raises:
        StoreFailed: it cannot be made, is damaged, or is of a later version; it is left as it is.
    """
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, mode=0o700)
        engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
        event.listen(engine, "connect", _connected)
        event.listen(engine, "begin", _begin)
        with FileLock(f"{path}.lock", timeout=WAIT):  # its log is switched on and its tables made by one at a time
            path.touch(mode=0o600)
            version = _outside(engine, "PRAGMA user_version")
            MEMORY.version(version or MEMORY.newest, path)  # a new file says 0
            if not version:
                _outside(engine, "PRAGMA journal_mode=WAL")
                with transaction(engine, path, writes=True) as connection:
                    metadata.create_all(connection)
                    connection.exec_driver_sql(_WORDS)
                    connection.exec_driver_sql(f"PRAGMA user_version={MEMORY.newest}")
    except OSError as error:
        if isinstance(error, StoreFailed):
            raise
        raise StoreFailed(f"The memory {path} cannot be written: {error.strerror or error}; name another.") from error
    except DBAPIError as error:
        raise StoreFailed(_why(error, path)) from error
    return engine


@contextmanager
def transaction(engine: Engine, path: Path, *, writes: bool = False) -> Iterator[Connection]:
    """All of it or nothing; one that writes waits for other writers first, so that what it reads is what it changes.

    Raises:
        StoreFailed: the message says why; nothing was written.
    """
    try:
        with closing(_begun(engine.execution_options(writes=writes))) as connection:
            yield connection
            connection.commit()
    except DBAPIError as error:
        raise StoreFailed(_why(error, path)) from error


def _begun(engine: Engine) -> Connection:
    """A connection with its transaction begun. SQLite does not wait where a log is being recovered; this does."""
    end = time.monotonic() + WAIT
    while True:
        connection = engine.connect()
        try:
            connection.begin()
            return connection
        except OperationalError as error:
            connection.close()
            if not _name(error).startswith(_HELD) or time.monotonic() > end:
                raise
            time.sleep(0.05)


def empty_log(engine: Engine) -> None:
    """Write the log into the file and empty it, so that what was deleted stands in neither. Where others read, the
    last of them does so."""
    with suppress(DBAPIError):
        _outside(engine, "INSERT INTO words(words) VALUES ('optimize')")
        _outside(engine, "PRAGMA wal_checkpoint(TRUNCATE)")


def _outside(engine: Engine, statement: str) -> int | str:
    """A statement that is no part of a transaction of several; the first value that it gives, 0 for none."""
    try:
        with closing(engine.raw_connection()) as connection:
            row = connection.cursor().execute(statement).fetchone()
    except sqlite3.Error as error:
        raise DBAPIError(statement, None, error) from error
    found: int | str = row[0] if row else 0
    return found


WORDS_ADD = text("INSERT INTO words (rowid, body) VALUES (:number, :body)")
WORDS_DROP = text("DELETE FROM words WHERE rowid = :number")
WORDS_FIND = text("SELECT rowid, bm25(words) AS rank FROM words WHERE words MATCH :query").columns(
    Column("rowid", Integer), Column("rank", Float)
)


def words_query(words: list[str]) -> str:
    """At least one of the words, in the language of FTS5: each is quoted, so that none is read as a part of it."""
    return " OR ".join(f'"{word}"' for word in words)


def _connected(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions are begun below, not by Python's module
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _name(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlite_errorname", ""))


def _why(error: DBAPIError, path: Path) -> str:
    name = _name(error)
    if name.startswith("SQLITE_FULL"):
        return f"The disk of the memory {path} is full; free some space. Nothing was written."
    if name.startswith(_HELD):
        return f"The memory {path} is held by another program for more than {WAIT:g} seconds; close that program."
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return (
            f"The memory {path} is damaged, or no memory ({error.orig}). It was left as it is: move it away to begin "
            "a new one, and try `sqlite3 FILE .recover` on it."
        )
    return f"The memory {path} failed ({error.orig}); look at its disk and its permissions."
