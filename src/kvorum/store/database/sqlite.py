"""An SQLite file in WAL mode: one writer at a time, any number of readers, for processes of one machine."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from filelock import FileLock
from sqlalchemy import URL, ColumnElement, Connection, Engine, Float, NullPool, create_engine, event, literal
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from kvorum.store.database.dialect import Step
from kvorum.versions import Form

_HELD = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")


class SqliteFile:
    """The file ``path``, made where it is not there.

    ``wait``: seconds for which a writer waits for others. ``pragmas``: what each connection is told. ``pooled``:
    whether connections stay open between transactions. ``private``: whether its owner alone may read it.
    """

    shared = False

    def __init__(
        self, path: Path, *, wait: float = 30.0, pragmas: Sequence[str] = (), pooled: bool = True, private: bool = False
    ) -> None:
        self.path, self.place = path, str(path)
        self._wait, self._pragmas, self._pooled, self._private = wait, pragmas, pooled, private

    def open(self, form: Form, steps: Sequence[Step]) -> Engine:
        """See ``Dialect``. A file of a later version is left as it is."""
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True, mode=0o700 if self._private else 0o777)
        url, arguments = URL.create("sqlite", database=str(self.path)), {"timeout": self._wait}
        engine = create_engine(url, connect_args=arguments, poolclass=None if self._pooled else NullPool)
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "begin", _begin)
        try:
            # Its log is switched on and its tables made by one at a time.
            with FileLock(f"{self.path}.lock", timeout=30):
                if self._private:
                    self.path.touch(mode=0o600)
                found = int(self.outside(engine, "PRAGMA user_version"))
                version = form.version(found or form.newest, self.path)  # a new file says 0
                done = version if found else 0
                if done < len(steps):
                    self.outside(engine, "PRAGMA journal_mode=WAL")
                    with closing(self.begin(engine, True)) as connection:
                        for step in steps[done:]:
                            step(connection)
                        connection.exec_driver_sql(f"PRAGMA user_version={form.newest}")
                        connection.commit()
        except BaseException:
            engine.dispose()
            raise
        return engine

    def begin(self, engine: Engine, writes: bool) -> Connection:
        """See ``Dialect``. SQLite does not wait where a log is being recovered; this does."""
        end = time.monotonic() + self._wait
        while True:
            connection = engine.execution_options(writes=writes).connect()
            try:
                connection.begin()
                return connection
            except OperationalError as error:
                connection.close()
                if not _name(error).startswith(_HELD) or time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def outside(self, engine: Engine, statement: str) -> int | str:
        """A statement that is no part of a transaction of several; the first value that it gives, 0 for none."""
        try:
            with closing(engine.raw_connection()) as connection:
                row = connection.cursor().execute(statement).fetchone()
        except sqlite3.Error as error:
            raise DBAPIError(statement, None, error) from error
        found: int | str = row[0] if row else 0
        return found

    def clock(self) -> ColumnElement[float]:
        """See ``Dialect``."""
        return literal(time.time(), Float)

    def why(self, error: DBAPIError, what: str) -> str:
        """See ``Dialect``."""
        name = _name(error)
        if name.startswith("SQLITE_FULL"):
            return f"The disk of the {what} {self.path} is full; free some space. Nothing was written."
        if name.startswith(_HELD):
            return f"The {what} {self.path} is locked by another program; close that program. Nothing was written."
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return (
                f"The {what} {self.path} is damaged, or none ({error.orig}). It was left as it is: move it away to "
                "begin a new one, and try `sqlite3 FILE .recover` on it."
            )
        return f"The {what} {self.path} failed ({error.orig}); look at its disk and its permissions."

    def _connected(self, connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions are begun below, not by Python's module
        for pragma in self._pragmas:
            connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _name(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlite_errorname", ""))
