"""The store of runs: every run and every event of its trace, in an SQLite file or a PostgreSQL database.

What is committed survives the end of the process at any moment. The file is in a folder that one server has at a time
(a lock file says so); anybody may read it meanwhile. A database is shared by any number of servers: each writes only to
the runs that it holds a claim on, and a claim that is not renewed is anybody's (``run_claims``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypedDict

from filelock import FileLock, Timeout
from sqlalchemy import ColumnElement, Row, Select, and_, delete, func, insert, or_, select, text, update

from kvorum.engine.budget import LedgerData
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.store.database.database import Database
from kvorum.store.database.dialect import Dialect
from kvorum.store.database.postgresql import PostgresDatabase
from kvorum.store.database.sqlite import SqliteFile
from kvorum.store.events import Event, as_json
from kvorum.store.run_claims import Claims
from kvorum.store.run_tables import NOBODY, STEPS, UNFINISHED, events, owners, runs
from kvorum.versions import RUN_STORE

Column: TypeAlias = str | int | float | None
"""What a column of the tables can hold; objects are JSON in a text."""

StoredEvent: TypeAlias = tuple[int, str, str]
"""(number, kind, JSON) of an event."""

_Row: TypeAlias = "Row[tuple[Column, ...]]"

_whose: ColumnElement[str] = func.coalesce(owners.c.owner, NOBODY)
_RUNS = select(runs, _whose.label("owner")).join_from(runs, owners, isouter=True)
_JSON = ("spec", "ledger", "error", "parent")
"""Columns that hold an object."""


class StoreError(Exception):
    """The store did not take or give something; the message says why and what to do."""


class RunError(TypedDict):
    """Why a run failed, for people, and of which kind that is."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """A run as it is stored: ``spec`` what it was asked for, ``events`` how many there are, ``owner`` whose it is."""

    id: str
    created: float
    spec: JsonObject
    fingerprint: str
    status: str
    ticks: int
    events: int
    ledger: LedgerData | None
    outcome: str | None
    answer: str | None
    spent: str | None
    error: RunError | None
    parent: JsonObject | None
    owner: str = NOBODY

    @classmethod
    def of(cls, row: _Row) -> Record:
        """From a row of the table."""
        values = dict(row._mapping)
        return cls(**values | {name: json.loads(values[name]) for name in _JSON if values[name] is not None})

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status not in UNFINISHED


@dataclass(slots=True)
class Change:
    """What a tick adds to a run: events from number ``start`` on, as (kind, JSON), and new values of its columns."""

    run: str
    start: int
    events: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, Json | LedgerData | RunError] = field(default_factory=dict)


class Store:
    """Runs and traces in a file in the folder ``where``, or in the database of that URL.

    ``server``: the name that its claims bear; no two servers of a database may have the same.

    Raises:
        BadRequest: another server has it, or it cannot be opened. StoreError, of each method: it takes or gives
            nothing.
    """

    def __init__(self, where: Path | str, server: str = "") -> None:
        self._lock: FileLock | None = None
        if isinstance(where, Path):
            self._lock = _locked(where)
            dialect: Dialect = SqliteFile(
                where / "runs.sqlite",
                wait=2.0,
                # pages: a log of a MiB, not of four
                pragmas=["foreign_keys=ON", "synchronous=NORMAL", "wal_autocheckpoint=256"],
            )
        else:
            dialect = PostgresDatabase(where)
        try:
            self._database = Database(dialect, RUN_STORE, STEPS, refused=BadRequest, failed=StoreError)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self.claims = Claims(self._database, server)

    @property
    def shared(self) -> bool:
        """Whether other servers may have it, too."""
        return self._database.dialect.shared

    def close(self) -> None:
        """Close the file and let others have it; runs that are not over are anybody's."""
        with suppress(StoreError):  # without it, they are once the claims have run out
            self.claims.release()
        self._database.close()
        if self._lock is not None:
            self._lock.release()

    # -- writing -----------------------------------------------------------------------------------------------

    def add(
        self,
        run: str,
        spec: JsonObject,
        fingerprint: str,
        *,
        parent: JsonObject | None = None,
        events: Sequence[Event] = (),
        owner: str = NOBODY,
    ) -> None:
        """A new run of ``owner``'s, claimed, with the events that it begins with (of a fork)."""
        values: dict[str, Json | LedgerData] = {
            "id": run,
            "created": time.time(),
            "spec": spec,
            "fingerprint": fingerprint,
            "status": "queued",
            "ticks": sum(event["event"] == "tick" for event in events),
            "events": len(events),
            "parent": parent,
        }
        begun = [(event["event"], as_json(event)) for event in events]
        with self._database.transaction(writes=True) as connection:
            connection.execute(insert(runs).values({name: _column(value) for name, value in values.items()}))
            self.claims.add(connection, run)
            if owner != NOBODY:
                connection.execute(insert(owners).values(run=run, owner=owner))
            if begun:
                connection.execute(_ADD, _rows(run, 0, begun))

    def save(self, changes: Iterable[Change]) -> Sequence[str]:
        """Commit what a tick has added, all runs at once, but not to runs that another server has claimed or that were
        deleted: those are returned.

        What is saved again, after a connection was lost in the middle of a commit, changes nothing.

        Raises:
            StoreError: nothing of it was stored.
        """
        changes = list(changes)
        with self._database.transaction(writes=True) as connection:
            mine = self.claims.mine(connection, [change.run for change in changes])
            for change in changes:
                if change.run not in mine:
                    continue
                if change.events:
                    connection.execute(_ADD, _rows(change.run, change.start, change.events))
                values = {"events": change.start + len(change.events), **change.values}
                told = {name: _column(value) for name, value in values.items()}
                connection.execute(update(runs).where(runs.c.id == change.run).values(told))
                if values.get("status", UNFINISHED[0]) not in UNFINISHED:
                    self.claims.end(connection, change.run)
        return [change.run for change in changes if change.run not in mine]

    def delete(self, run: str) -> None:
        """Forget a run with its trace."""
        with self._database.transaction(writes=True) as connection:
            connection.execute(delete(runs).where(runs.c.id == run))

    # -- reading, from any thread ------------------------------------------------------------------------------

    def _read(self, chosen: Select[tuple[Column, ...]]) -> Sequence[_Row]:
        with self._database.transaction() as connection:
            return connection.execute(chosen).all()

    def get(self, run: str) -> Record | None:
        """The run of that id, or None if there is none."""
        found = self._read(_RUNS.where(runs.c.id == run)) if "\0" not in run else []
        return Record.of(found[0]) if found else None

    def newest(self, limit: int, before: str | None = None, owner: str = NOBODY) -> list[Record]:
        """The newest runs of ``owner`` first; those older than run ``before``."""
        chosen = _RUNS.where(_whose == owner).order_by(runs.c.created.desc(), runs.c.id.desc()).limit(limit)
        if before is not None:
            edge = self.get(before)
            if edge is None:
                return []
            older, same = runs.c.created < edge.created, runs.c.created == edge.created
            chosen = chosen.where(or_(older, and_(same, runs.c.id < edge.id)))
        return [Record.of(row) for row in self._read(chosen)]

    def of(self, ids: Iterable[str]) -> list[Record]:
        """Those runs, the oldest first."""
        return [Record.of(row) for row in self._read(_RUNS.where(runs.c.id.in_(ids)).order_by(runs.c.created))]

    def events(self, run: str, start: int = 0, count: int = 2**31) -> list[StoredEvent]:
        """A run's events from number ``start`` on."""
        chosen = select(events.c.n, events.c.kind, events.c.body).where(events.c.run == run, events.c.n >= start)
        with self._database.transaction() as connection:
            found = connection.execute(chosen.order_by(events.c.n).limit(count))
            return [(n, kind, body) for n, kind, body in found]


def _locked(folder: Path) -> FileLock:
    """The folder, made where it is not there, for this server alone. Raises BadRequest."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", thread_local=False)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadRequest(f"Another server has the store {folder}; give this one --store FOLDER.") from error
    except OSError as error:
        raise BadRequest(f"The store {folder} cannot be written: {error.strerror}; give --store FOLDER.") from error
    return lock


_ADD = text("INSERT INTO events (run, n, kind, body) VALUES (:run, :n, :kind, :body) ON CONFLICT DO NOTHING")


def _rows(run: str, start: int, events: Sequence[tuple[str, str]]) -> list[dict[str, Column]]:
    """What adds events, as (kind, JSON), from number ``start`` on."""
    return [{"run": run, "n": n, "kind": kind, "body": body} for n, (kind, body) in enumerate(events, start)]


def _column(value: Json | LedgerData | RunError) -> Column:
    return value if value is None or isinstance(value, str | int | float) else as_json(value)
