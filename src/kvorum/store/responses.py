"""Responses that a server keeps, so that a conversation goes on from the last one's id, in SQLite or PostgreSQL.

SQLite's file lies in the folder of the store of runs, whose lock keeps other servers away; a database is shared. Each
has an object as clients see it, and what it takes to go on behind it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Column, Connection, Float, MetaData, String, Table, Text, delete, insert, select

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.store.database.database import Database
from kvorum.store.database.dialect import Dialect
from kvorum.store.database.postgresql import PostgresDatabase
from kvorum.store.database.sqlite import SqliteFile
from kvorum.store.events import as_json
from kvorum.store.runs import StoreError
from kvorum.versions import RESPONSES

MOST = 10_000
"""Responses that are kept; beyond that the oldest go."""
_metadata = MetaData()
_responses = Table(
    "responses",
    _metadata,
    Column("id", String, primary_key=True),
    Column("created", Float(53), nullable=False, index=True),
    Column("body", Text, nullable=False),
    Column("input", Text, nullable=False),
    Column("ids", Text, nullable=False),
)


@dataclass(slots=True)
class StoredResponse:
    """A response: its object ``body``, the items that it answers (those of earlier turns too), and ``ids``, the tokens
    of its prompt and its reply as the model had them; none where a program has written it."""

    id: str
    body: dict[str, Json]
    input: list[JsonObject]
    ids: list[int] = field(default_factory=list)


class ResponseStore:
    """Responses in a file in the folder ``where``, or in the database of that URL. To be used from any thread.

    Raises:
        BadRequest: it cannot be opened. StoreError, of each method: it takes or gives nothing.
    """

    def __init__(self, where: Path | str, most: int = MOST) -> None:
        self._most = most
        dialect: Dialect
        if isinstance(where, Path):
            dialect = SqliteFile(where / "responses.sqlite", pragmas=["synchronous=NORMAL"])
        else:
            dialect = PostgresDatabase(where)
        self._database = Database(dialect, RESPONSES, [_make], refused=BadRequest, failed=StoreError)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def put(self, one: StoredResponse) -> None:
        """Keep it, in place of what was kept under its id."""
        told = {"body": as_json(one.body), "input": as_json(one.input), "ids": as_json(one.ids)}
        newest = select(_responses.c.created, _responses.c.id)
        oldest = newest.order_by(_responses.c.created.desc(), _responses.c.id.desc()).offset(self._most)
        with self._database.transaction(writes=True) as connection:
            same = _responses.c.id == one.id
            created = connection.execute(select(_responses.c.created).where(same)).scalar() or time.time()
            connection.execute(delete(_responses).where(same))
            connection.execute(insert(_responses).values(id=one.id, created=created, **told))
            surplus = [row.id for row in connection.execute(oldest)]
            if surplus:
                connection.execute(delete(_responses).where(_responses.c.id.in_(surplus)))

    def get(self, response: str) -> StoredResponse | None:
        """The response of that id, or None."""
        chosen = select(_responses.c.body, _responses.c.input, _responses.c.ids).where(_responses.c.id == response)
        with self._database.transaction() as connection:
            found = None if "\0" in response else connection.execute(chosen).first()
        return None if found is None else StoredResponse(response, *map(json.loads, found))

    def delete(self, response: str) -> bool:
        """Forget it; whether it was there."""
        if "\0" in response:
            return False
        with self._database.transaction(writes=True) as connection:
            return connection.execute(delete(_responses).where(_responses.c.id == response)).rowcount > 0


def _make(connection: Connection) -> None:
    """A file that was made before it had versions has the table already."""
    _metadata.create_all(connection)
