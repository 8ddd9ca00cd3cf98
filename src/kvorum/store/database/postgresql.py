"""A PostgreSQL database, by URL: any number of servers and machines share it.

Each transaction is short and holds no lock beyond its end, so that poolers in any mode may stand between. Versions of
what lies there are rows of the table ``kvorum_versions``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    cast,
    create_engine,
    delete,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from kvorum.errors import BadRequest, need
from kvorum.store.database.dialect import Step
from kvorum.versions import Form

_WAIT = 30
"""Seconds for which a transaction waits for the locks of others."""
_CONNECT = 10
"""Seconds that a server may take to answer."""
_MIGRATES = 0x6B766F72756D
"""The number of the lock that who makes tables has until the end of its transaction."""
_PLAIN = ("postgresql", "postgres", "postgresql+psycopg")
_versions = Table(
    "kvorum_versions",
    MetaData(),
    Column("what", String(80), primary_key=True),
    Column("version", Integer, nullable=False),
)


def is_url(where: str) -> bool:
    """Whether a place is a database by URL, and no file or folder."""
    return "://" in where


def read_url(where: str) -> URL:
    """The URL of a PostgreSQL database. Raises BadRequest, without any password: it is none."""
    example = "as in postgresql+psycopg://USER@HOST/DATABASE"
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise BadRequest(f"The URL cannot be read; give one {example}.") from None
    if url.drivername not in _PLAIN:
        kind = url.drivername[:40]
        raise BadRequest(f"What is kept goes to files or to PostgreSQL, not to {kind!r}: give a URL {example}.")
    if not url.database:
        raise BadRequest(f"The URL names no database; give one {example}.")
    return url.set(drivername="postgresql+psycopg")


class PostgresDatabase:
    """The database of a URL. ``pooled``: whether connections stay open between transactions.

    Raises:
        BadRequest: it is no URL of one. MissingExtra: psycopg is not installed.
    """

    shared = True

    def __init__(self, where: str, *, pooled: bool = True) -> None:
        self._url, self._pooled = read_url(where), pooled
        need("psycopg", "A store in PostgreSQL", "postgres")
        host = self._url.host or "this machine"
        port = f":{self._url.port}" if self._url.port else ""
        self.place = f"{self._url.database} at {host}{port}"

    def open(self, form: Form, steps: Sequence[Step]) -> Engine:
        """See ``Dialect``. Who may not make tables may use such as are there."""
        # Statements are not prepared and none is left in a pipeline: a pooler may change the server process between.
        arguments = {"connect_timeout": _CONNECT, "application_name": "kvorum", "prepare_threshold": None}
        pool = None if self._pooled else NullPool
        engine = create_engine(self._url, connect_args=arguments, pool_pre_ping=self._pooled, poolclass=pool)
        try:
            with closing(self.begin(engine, True)) as connection:
                if _version(connection, form) < len(steps):
                    connection.execute(select(func.pg_advisory_xact_lock(_MIGRATES)))
                    found = _version(connection, form)  # somebody may have done so meanwhile
                    done = form.version(found, self.place) if found else 0
                    _versions.create(connection, checkfirst=True)
                    for step in steps[done:]:
                        step(connection)
                    connection.execute(delete(_versions).where(_versions.c.what == form.what))
                    connection.execute(insert(_versions).values(what=form.what, version=form.newest))
                form.version(_version(connection, form), self.place)
                connection.commit()
        except BaseException:
            engine.dispose()
            raise
        return engine

    def begin(self, engine: Engine, writes: bool) -> Connection:
        """See ``Dialect``. What only reads sees all of it as of one moment."""
        level = "READ COMMITTED" if writes else "REPEATABLE READ"
        connection = engine.execution_options(isolation_level=level).connect()
        try:
            connection.begin()
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAIT}s'")
        except BaseException:
            connection.close()
            raise
        return connection

    def clock(self) -> ColumnElement[float]:
        """See ``Dialect``. The server's own."""
        return cast(func.extract("epoch", func.clock_timestamp()), Double)

    def why(self, error: DBAPIError, what: str) -> str:
        """See ``Dialect``."""
        state = getattr(error.orig, "sqlstate", None) or ""
        said = " ".join(str(error.orig).split("\n")[0].split())[:300].rstrip(".")
        user, place = self._url.username or "you", f"The {what} {self.place}"
        if state in ("28P01", "28000") or re.search("authentication failed|no password supplied", said):
            return f"{place} refuses the user {user}: look at the user and the password of its URL, or at ~/.pgpass."
        if state == "3D000" or re.search('database "[^"]*" does not exist', said):
            return f"{place} is not there: make the database with `createdb {self._url.database}`."
        if state in ("42501", "3F000"):
            return f"{place} does not let {user} do this ({said}): GRANT what it needs, or name another."
        if state == "55P03":
            return f"{place} is locked by another program for more than {_WAIT} seconds; close that program."
        if state in ("53100", "53200"):
            return f"The disk or memory of the server of the {what} {self.place} is full; free some space."
        if error.connection_invalidated or not state or state.startswith(("08", "57P")):
            return f"{place} does not answer ({said}): start its server, or look at its URL."
        return f"{place} failed ({said}); look at its server's log."


def _version(connection: Connection, form: Form) -> int:
    """What is there; 0: nothing."""
    if not inspect(connection).has_table(_versions.name):
        return 0
    return connection.execute(select(_versions.c.version).where(_versions.c.what == form.what)).scalar() or 0
