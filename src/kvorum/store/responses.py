"""Responses that a server keeps, so that a conversation goes on from the last one's id, in SQLite or PostgreSQL.

SQLite's file lies in the folder of the store of runs, whose lock keeps other servers away; a database is shared. Each
has an object as clients see it, and what it takes to go on behind it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    MetaData,
    Select,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
)

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.store.database.database import Database
from kvorum.store.database.dialect import Dialect
from kvorum.store.database.postgresql import PostgresDatabase
from kvorum.store.database.sqlite import SqliteFile
from kvorum.store.events import as_json
from kvorum.store.run_tables import NOBODY
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
_owners = Table(
    "response_owners",
    _metadata,
    Column("response", ForeignKey(_responses.c.id, ondelete="CASCADE"), primary_key=True),
    Column("owner", String, nullable=False),
)


@dataclass(slots=True)
class StoredResponse:
    """A response: its object ``body``, the items that it answers (those of earlier turns too), and ``ids``, the tokens
    of its prompt and its reply as the model had them; none where a program has written it. ``owner``: whose it is."""

    id: str
    body: dict[str, Json]
    input: list[JsonObject]
    ids: list[int] = field(default_factory=list)
    owner: str = NOBODY


class ResponseStore:
    """Responses in a file in the folder ``where``, or in the database of that URL. To be used from any thread.

    Raises:
        BadRequest: it cannot be opened. StoreError, of each method: it takes or gives nothing.
    """

    def __init__(self, where: Path | str, most: int = MOST) -> None:
        self._most = most
        dialect: Dialect
        if isinstance(where, Path):
            dialect = SqliteFile(where / "responses.sqlite", pragmas=["foreign_keys=ON", "synchronous=NORMAL"])
        else:
            dialect = PostgresDatabase(where)
        self._database = Database(dialect, RESPONSES, [_make, _own], refused=BadRequest, failed=StoreError)

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
            if one.owner != NOBODY:
                connection.execute(insert(_owners).values(response=one.id, owner=one.owner))
            surplus = [row.id for row in connection.execute(oldest)]
            if surplus:
                connection.execute(delete(_responses).where(_responses.c.id.in_(surplus)))

    def get(self, response: str, owner: str = NOBODY) -> StoredResponse | None:
        """The response of that id, or None where ``owner`` has none such."""
        with self._database.transaction() as connection:
            found = None if "\0" in response else connection.execute(_of(response, owner)).first()
        if found is None:
            return None
        return StoredResponse(response, json.loads(found.body), json.loads(found.input), json.loads(found.ids), owner)

    def delete(self, response: str, owner: str = NOBODY) -> bool:
        """Forget it; whether ``owner`` had it."""
        if "\0" in response:
            return False
        with self._database.transaction(writes=True) as connection:
            if connection.execute(_of(response, owner)).first() is None:
                return False
            return connection.execute(delete(_responses).where(_responses.c.id == response)).rowcount > 0


def _of(response: str, owner: str) -> Select[tuple[str, str, str]]:
    """Body, input and ids of the response of that id, if it is ``owner``'s."""
    chosen = select(_responses.c.body, _responses.c.input, _responses.c.ids)
    joined = chosen.join_from(_responses, _owners, isouter=True)
    return joined.where(_responses.c.id == response, func.coalesce(_owners.c.owner, NOBODY) == owner)


def _make(connection: Connection) -> None:
    """A file that was made before it had versions has the table already."""
    _metadata.create_all(connection, [_responses])


def _own(connection: Connection) -> None:
    """Responses have owners: those there are have nobody."""
    _metadata.create_all(connection, [_owners])
