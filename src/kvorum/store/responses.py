"""Responses that a server keeps, so that a conversation goes on from the last one's id: one SQLite file.

It lies in the folder of the store of runs, whose lock keeps other servers away. Each has an object as clients see it,
and what it takes to go on behind it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.store.events import as_json
from kvorum.store.runs import StoreError

MOST = 10_000
"""Responses that are kept; beyond that the oldest go."""
_TABLE = """CREATE TABLE IF NOT EXISTS responses (
  id TEXT PRIMARY KEY, created REAL NOT NULL, body TEXT NOT NULL, input TEXT NOT NULL, ids TEXT NOT NULL)"""


@dataclass(slots=True)
class StoredResponse:
    """A response: its object ``body``, the items that it answers (those of earlier turns too), and ``ids``, the tokens
    of its prompt and its reply as the model had them; none where a program has written it."""

    id: str
    body: dict[str, Json]
    input: list[JsonObject]
    ids: list[int] = field(default_factory=list)


class ResponseStore:
    """Responses in ``folder``. To be used from any thread.

    Raises:
        BadRequest: the file cannot be opened. StoreError, of each method: it takes or gives nothing.
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self._most, self._lock = most, threading.Lock()
        try:
            self._file = sqlite3.connect(folder / "responses.sqlite", isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute(_TABLE)
        except sqlite3.Error as error:
            raise BadRequest(f"The store of responses in {folder} cannot be opened: {error}.") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def put(self, one: StoredResponse) -> None:
        """Keep it, in place of what was kept under its id."""
        row = (one.id, time.time(), as_json(one.body), as_json(one.input), as_json(one.ids))
        update = "body = excluded.body, input = excluded.input, ids = excluded.ids"
        self._do(f"INSERT INTO responses VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET {update}", row)
        oldest = "SELECT id FROM responses ORDER BY created DESC, id DESC LIMIT -1 OFFSET ?"
        self._do(f"DELETE FROM responses WHERE id IN ({oldest})", (self._most,))

    def get(self, response: str) -> StoredResponse | None:
        """The response of that id, or None."""
        found = self._do("SELECT id, body, input, ids FROM responses WHERE id = ?", (response,))
        return None if not found else StoredResponse(found[0][0], *map(json.loads, found[0][1:]))

    def delete(self, response: str) -> bool:
        """Forget it; whether it was there."""
        return bool(self._do("DELETE FROM responses WHERE id = ? RETURNING id", (response,)))

    def _do(self, statement: str, values: tuple[str | float | int, ...]) -> list[tuple[str, ...]]:
        try:
            with self._lock:
                return self._file.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"The store of responses failed ({error}); look at its disk.") from error
