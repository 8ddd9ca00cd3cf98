"""Which server goes on with which run, where several share a database.

A claim bears its holder's name and ends at a time by the database's clock unless it is renewed. Whoever writes to a run
looks first, in the same transaction, whether the claim is still its own; so a server that was slow, or cut off, past
the end of its claim writes nothing beside the one that took the run over. Nothing is locked between transactions.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from kvorum.store.database.database import Database
from kvorum.store.run_tables import UNFINISHED, claims, runs

LEASE = 30.0
"""Seconds for which a claim holds that is not renewed."""
RENEW = 5.0
"""Seconds between renewals."""


class Claims:
    """The claims of one server, ``holder``; without a name one of its own is drawn."""

    def __init__(self, database: Database, holder: str = "", lease: float = LEASE) -> None:
        self._database, self.lease = database, lease
        self.holder = holder or secrets.token_hex(8)

    def add(self, connection: Connection, run: str) -> None:
        """Claim a new run."""
        until = self._database.dialect.clock() + self.lease
        connection.execute(insert(claims).values(run=run, holder=self.holder, until=until))

    def mine(self, connection: Connection, ids: Sequence[str]) -> Collection[str]:
        """Which of these runs this server holds; nobody takes them before the transaction ends."""
        chosen = select(claims.c.run).where(claims.c.run.in_(ids), claims.c.holder == self.holder)
        return set(connection.execute(chosen.order_by(claims.c.run).with_for_update(read=True)).scalars())

    def end(self, connection: Connection, run: str) -> None:
        """A run is over; nobody writes to it any more."""
        connection.execute(delete(claims).where(claims.c.run == run))

    def renew(self) -> None:
        """Hold all claims further on. Raises the database's error."""
        until = self._database.dialect.clock() + self.lease
        with self._database.transaction(writes=True) as connection:
            connection.execute(update(claims).where(claims.c.holder == self.holder).values(until=until))

    def release(self, only: Sequence[str] | None = None) -> None:
        """Let anybody have what this server holds, or of that these runs. Raises the database's error."""
        mine = update(claims).where(claims.c.holder == self.holder)
        if only is not None:
            mine = mine.where(claims.c.run.in_(only))
        with self._database.transaction(writes=True) as connection:
            connection.execute(mine.values(holder="", until=0.0))

    def take(self, fingerprint: str | None = None, most: int = 1000) -> Sequence[str]:
        """Claim runs that are not over and that nobody holds any more: each goes to one taker. Returns their ids.

        ``fingerprint``: only those of this model. In a file, which no other server has, nobody else holds any.

        Raises the database's error.
        """
        dialect = self._database.dialect
        chosen = select(claims.c.run).join(runs).where(runs.c.status.in_(UNFINISHED), claims.c.holder != self.holder)
        if dialect.shared:
            chosen = chosen.where(claims.c.until < dialect.clock())
        if fingerprint is not None:
            chosen = chosen.where(runs.c.fingerprint == fingerprint)
        with self._database.transaction(writes=True) as connection:
            # Two statements: a database may evaluate a part of one twice, and lock more than it changes.
            locked = chosen.order_by(runs.c.created).limit(most).with_for_update(skip_locked=True, of=claims)
            found = connection.execute(locked).scalars().all()
            values = {"holder": self.holder, "until": dialect.clock() + self.lease}
            connection.execute(update(claims).where(claims.c.run.in_(found)).values(values))
        return found
