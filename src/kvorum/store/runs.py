"""The store of runs: one SQLite file in WAL mode, with every run and every event of its trace.

What is committed survives the end of the process at any moment. One server has a store at a time (a lock file says
so); anybody may read it meanwhile. Blocks that clients save lie in a folder beside it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypedDict

from filelock import FileLock, Timeout

from kvorum.engine.budget import LedgerData
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.store.events import Event, as_json
from kvorum.versions import RUN_STORE

Column: TypeAlias = str | int | float | None
"""What a column of the file can hold; objects are JSON in a text."""

StoredEvent: TypeAlias = tuple[int, str, str]
"""(number, kind, JSON) of an event."""

_Statement: TypeAlias = "tuple[str, Sequence[Column]]"
"""SQL, and what stands for its question marks."""

UNFINISHED = ("queued", "running", "paused")

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
    """A run as it is stored. ``spec`` is what it was asked for; ``events`` how many there are."""

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

    @classmethod
    def of(cls, row: sqlite3.Row) -> Record:
        """From a row of the table."""
        values = {name: row[name] for name in row.keys()}  # noqa: SIM118 (not a dictionary)
        return cls(**values | {name: json.loads(values[name]) for name in _JSON if values[name] is not None})


@dataclass(slots=True)
class Change:
    """What a tick adds to a run: events from number ``start`` on, as (kind, JSON), and new values of its columns."""

    run: str
    start: int
    events: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, Json | LedgerData | RunError] = field(default_factory=dict)


class Store:
    """Runs and traces in ``folder``.

    Raises:
        BadRequest: another server has it, or it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "blocks").mkdir(exist_ok=True)
            self._lock = FileLock(folder / "lock", thread_local=False)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise BadRequest(f"Another server has the store {folder}; give this one --store FOLDER.") from error
        except OSError as error:
            raise BadRequest(f"The store {folder} cannot be written: {error.strerror}; give --store FOLDER.") from error
        self._path = folder / "runs.sqlite"
        self._readers = threading.local()
        self._open: list[sqlite3.Connection] = []
        try:
            self._writer = self._connect()
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA synchronous=NORMAL")
            self._writer.execute("PRAGMA wal_autocheckpoint=256")  # pages: a log of a MiB, not of four
            (version,) = self._writer.execute("PRAGMA user_version").fetchone()
            RUN_STORE.version(version or RUN_STORE.newest, folder)  # a new file says 0
            self._writer.executescript(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
            self._writer.execute(f"PRAGMA user_version={RUN_STORE.newest}")
        except BadRequest:
            self.close()
            raise
        except sqlite3.Error as error:
            self.close()
            raise BadRequest(f"The store {self._path} cannot be opened: {error}; give --store FOLDER.") from error

    def _connect(self) -> sqlite3.Connection:
        made = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=2.0)
        made.row_factory = sqlite3.Row
        made.execute("PRAGMA foreign_keys=ON")
        self._open.append(made)
        return made

    def close(self) -> None:
        """Close the file and let others have it."""
        for connection in self._open:
            connection.close()
        self._lock.release()

    # -- writing, from one thread ------------------------------------------------------------------------------

    def _write(self, work: Iterable[_Statement]) -> None:
        """All of it or nothing."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for statement, values in work:
                self._writer.execute(statement, values)
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise StoreError(_why(error)) from error

    def add(
        self,
        run: str,
        spec: JsonObject,
        fingerprint: str,
        *,
        parent: JsonObject | None = None,
        events: Sequence[Event] = (),
    ) -> None:
        """A new run, with the events that it begins with (of a fork)."""
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
        statement = f"INSERT INTO runs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
        begun = [(event["event"], as_json(event)) for event in events]
        self._write([(statement, [_column(value) for value in values.values()]), *_inserts(run, 0, begun)])

    def save(self, changes: Iterable[Change]) -> None:
        """Commit what a tick has added, all runs at once.

        Raises:
            StoreError: nothing of it was stored.
        """
        work = []
        for change in changes:
            work += _inserts(change.run, change.start, change.events)
            values = {"events": change.start + len(change.events), **change.values}
            statement = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in values)} WHERE id = ?"
            work.append((statement, [*map(_column, values.values()), change.run]))
        self._write(work)

    def delete(self, run: str) -> None:
        """Forget a run with its trace."""
        self._write([("DELETE FROM runs WHERE id = ?", (run,))])

    # -- reading, from any thread ------------------------------------------------------------------------------

    def _read(self, statement: str, values: Sequence[Column] = ()) -> list[sqlite3.Row]:
        if not hasattr(self._readers, "connection"):
            self._readers.connection = self._connect()
        try:
            found: list[sqlite3.Row] = self._readers.connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(_why(error)) from error
        return found

    def get(self, run: str) -> Record | None:
        """The run of that id, or None if there is none."""
        found = self._read("SELECT * FROM runs WHERE id = ?", (run,))
        return Record.of(found[0]) if found else None

    def newest(self, limit: int, before: str | None = None) -> list[Record]:
        """The newest runs first; those older than run ``before``."""
        edge = "" if before is None else "WHERE (created, id) < (SELECT created, id FROM runs WHERE id = ?)"
        values = (limit,) if before is None else (before, limit)
        found = self._read(f"SELECT * FROM runs {edge} ORDER BY created DESC, id DESC LIMIT ?", values)
        return [Record.of(row) for row in found]

    def unfinished(self) -> list[Record]:
        """Runs that had begun or waited, the oldest first."""
        marks = ", ".join("?" * len(UNFINISHED))
        found = self._read(f"SELECT * FROM runs WHERE status IN ({marks}) ORDER BY created", UNFINISHED)
        return [Record.of(row) for row in found]

    def events(self, run: str, start: int = 0, count: int = 2**62) -> list[StoredEvent]:
        """A run's events from number ``start`` on."""
        found = self._read(
            "SELECT n, kind, body FROM events WHERE run = ? AND n >= ? ORDER BY n LIMIT ?", (run, start, count)
        )
        return [(n, kind, body) for n, kind, body in found]


def _inserts(run: str, start: int, events: Sequence[tuple[str, str]]) -> list[_Statement]:
    """What adds events, as (kind, JSON), from number ``start`` on."""
    return [
        ("INSERT INTO events VALUES (?, ?, ?, ?)", [run, n, kind, body]) for n, (kind, body) in enumerate(events, start)
    ]


def _column(value: Json | LedgerData | RunError) -> Column:
    return value if value is None or isinstance(value, str | int | float) else as_json(value)


def _why(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return "The disk of the store is full; free some space."
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "The store is locked by another program; close that program."
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR")):
        return f"The store cannot be written ({error}); look at its disk and its permissions."
    return f"The store failed ({error})."
