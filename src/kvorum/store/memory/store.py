"""The memory: entries in one file, or one database, that any number of processes read and write at the same time.

Each change is one transaction that has read what it changes: no write is lost, and of two updates at once both are
kept, the second above the first. Covers remembering, finding by words and by age, replacing and forgetting. What enters
and leaves it as files is in ``files``; what a model sees of it, and who may write, is the harness's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeAlias

import platformdirs
from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from kvorum.errors import BadRequest, NotAllowed, UnknownName
from kvorum.store.database.postgresql import is_url
from kvorum.store.memory.entries import (
    KINDS,
    NAMESPACE,
    Entry,
    Recalled,
    check_limit,
    check_namespace,
    checked,
    checked_text,
    indexed_words,
    new_entry,
    searched_words,
)
from kvorum.store.memory.tables import entries, open_memory, wait_for_writers

FILE = "KVORUM_MEMORY"
"""The variable that names the file, or is the URL of a database."""
_FIELDS = [field.name for field in fields(Entry)]
Found: TypeAlias = tuple[int | str | float | None, ...]
_MOST_WORDS = 200
"""Words of a query that are looked for; of a longer one the first."""


def memory_file() -> Path | str:
    """Where memory lies: $KVORUM_MEMORY, or a file in $KVORUM_HOME or in the user's data folder."""
    if named := os.environ.get(FILE):
        return named if is_url(named) else Path(named).expanduser()
    home = os.environ.get("KVORUM_HOME")
    folder = Path(home).expanduser() if home else Path(platformdirs.user_data_dir("kvorum"))
    return folder / "memory.sqlite"


class MemoryStore:
    """Entries in ``where``: a file, or the URL of a PostgreSQL database (default: ``memory_file()``).

    Raises:
        StoreFailed: it cannot be opened; it is left as it is. BadRequest: a later kvorum wrote it, or it is no URL of
            such a database. MissingExtra: psycopg is not installed.
    """

    def __init__(self, where: str | Path | None = None) -> None:
        place = memory_file() if where is None else where
        self._database, self._words = open_memory(place if is_url(str(place)) else Path(place))
        self.path = self._database.dialect.place
        """The file, or the database without its password, for people."""

    @property
    def ranked_by(self) -> str:
        """By what ``recall`` finds the best: "bm25" in SQLite, "ts_rank" in PostgreSQL, whose order may differ."""
        return self._words.ranked_by

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that nobody else writes beside."""
        with self._database.transaction(writes=True) as connection:
            wait_for_writers(connection)
            yield connection

    # -- writing -----------------------------------------------------------------------------------------------

    def remember(
        self, text: str, *, namespace: str = NAMESPACE, source: str = "person", time: float | None = None
    ) -> Entry:
        """Keep a text. One that is remembered in this namespace already, word for word, is not kept twice.

        Args:
            source: who wrote it (see ``Entry``). time: seconds since 1970; None: now.

        Raises:
            BadRequest: the text, the namespace or the source cannot be kept; the message says why. StoreFailed.
        """
        entry = new_entry(text, namespace, source, moment=time)
        with self._writing() as connection:
            known = _same(connection, entry)
            if known is None:
                self._add(connection, entry)
        return known or entry

    def update(self, name: str, text: str, *, source: str = "person", over: Collection[str] = KINDS) -> Entry:
        """Put another text in the place of an entry; the old one stays readable, and is not recalled any more.

        Where it was replaced meanwhile, the new text takes the place of what it was replaced by. One that stands there
        already, word for word, is not kept twice.

        Args:
            name: its id, or at least four characters of its beginning. source: who writes. over: whose entries may be
                replaced.

        Raises:
            UnknownName: there is no such entry. NotAllowed: it is somebody's who is not among ``over``. BadRequest.
        """
        text = checked_text(text)
        with self._writing() as connection:
            old = _newest(connection, _find(connection, name))
            _check_kind(old, over, "replaced")
            if old.text == text:
                return old
            entry = new_entry(text, old.namespace, source, supersedes=old.id)
            self._add(connection, entry)
            _supersede(connection, old.id, entry.id)
        return entry

    def forget(self, name: str, *, over: Collection[str] = KINDS) -> Sequence[Entry]:
        """Delete an entry for good, and with it all that it took the place of. Returns what was deleted.

        Raises: as ``update``.
        """
        with self._writing() as connection:
            doomed = _older(connection, _find(connection, name))
            for entry in doomed:
                _check_kind(entry, over, "forgotten")
            ids = [entry.id for entry in doomed]
            numbers = connection.execute(select(entries.c.number).where(entries.c.id.in_(ids))).scalars().all()
            self._words.drop(connection, numbers)
            connection.execute(delete(entries).where(entries.c.id.in_(ids)))
            connection.execute(update(entries).where(entries.c.supersedes.in_(ids)).values(supersedes=None))
        self._words.forgotten(self._database)
        return doomed

    def add(self, found: Iterable[Entry]) -> int:
        """Take in entries from elsewhere, with their ids and times; those that are here stay as they are, and a text
        that is remembered in its namespace already is not kept twice.

        Returns how many were new. All of them are taken in, or none.

        Raises:
            BadRequest: one cannot be kept, is another one here, or supersedes in a circle.
        """
        given = {entry.id: checked(entry) for entry in found}
        above = {name: [old] if (old := entry.supersedes) in given else [] for name, entry in given.items()}
        try:
            order = [name for name in TopologicalSorter(above).static_order() if name is not None]
        except CycleError as error:
            raise BadRequest(f"The entries {', '.join(map(str, error.args[1]))} supersede one another.") from None
        new = 0
        with self._writing() as connection:
            for entry in (given[name] for name in order):
                here = connection.execute(select(entries).where(entries.c.id == entry.id)).first()
                if here is not None:
                    if _entry(here).text != entry.text:
                        raise BadRequest(f"The entry {entry.id} is another one here; nothing was taken in.")
                    continue
                if entry.supersedes is None and _same(connection, entry) is not None:
                    continue
                replaced = _known(connection, entry.supersedes)
                old = None if replaced is None else _newest(connection, replaced).id
                self._add(connection, replace(entry, supersedes=old, superseded_by=None))
                if old is not None:
                    _supersede(connection, old, entry.id)
                new += 1
        return new

    # -- reading -----------------------------------------------------------------------------------------------

    def get(self, name: str) -> Entry:
        """The entry of that id, or of an id that begins so. Raises UnknownName: there is none, or more than one."""
        with self._database.transaction() as connection:
            return _find(connection, name)

    def history(self, name: str) -> Sequence[Entry]:
        """An entry with all that stood in its place before and after, the oldest first. Raises UnknownName."""
        with self._database.transaction() as connection:
            return _older(connection, _newest(connection, _find(connection, name)))[::-1]

    def recall(self, query: str, *, namespace: str = NAMESPACE, limit: int = 8) -> Recalled:
        """The current entries that share words with ``query``, the best first, the newer of two equals.

        What is best differs by database (``ranked_by``). ``query`` is any text; no sign in it has a meaning. Without a
        word in it nothing is found.
        """
        check_namespace(namespace)
        words = searched_words(query)[:_MOST_WORDS]
        if not words:
            return Recalled([])
        found = self._words.find(words)
        chosen = (
            select(entries)
            .join(found, found.c.number == entries.c.number)
            .where(entries.c.namespace == namespace, entries.c.superseded_by.is_(None))
        )
        return self._limited(chosen.order_by(found.c.rank, entries.c.time.desc(), entries.c.number.desc()), limit)

    def newest(self, *, namespace: str = NAMESPACE, limit: int = 8) -> Recalled:
        """The current entries that were written last, the newest first."""
        chosen = select(entries).where(
            entries.c.namespace == check_namespace(namespace), entries.c.superseded_by.is_(None)
        )
        return self._limited(chosen.order_by(entries.c.time.desc(), entries.c.number.desc()), limit)

    def list(self, *, namespace: str | None = None, superseded: bool = False) -> Sequence[Entry]:
        """All entries of a namespace, or of all, the oldest first; with ``superseded`` those that were replaced too."""
        chosen = select(entries).order_by(entries.c.namespace, entries.c.time, entries.c.number)
        if namespace is not None:
            chosen = chosen.where(entries.c.namespace == check_namespace(namespace))
        if not superseded:
            chosen = chosen.where(entries.c.superseded_by.is_(None))
        with self._database.transaction() as connection:
            return [_entry(row) for row in connection.execute(chosen)]

    def namespaces(self) -> Mapping[str, int]:
        """How many current entries each namespace has, by its name."""
        counted = select(entries.c.namespace, func.count()).where(entries.c.superseded_by.is_(None))
        with self._database.transaction() as connection:
            found = connection.execute(counted.group_by(entries.c.namespace).order_by(entries.c.namespace))
            return {str(name): int(number) for name, number in found}

    def _add(self, connection: Connection, entry: Entry) -> None:
        """Raises IntegrityError where the id is taken."""
        values = {name: getattr(entry, name) for name in _FIELDS}
        number = connection.execute(insert(entries).values(values).returning(entries.c.number)).scalar_one()
        self._words.add(connection, number, indexed_words(entry.text))

    def _limited(self, chosen: Select[Found], limit: int) -> Recalled:
        check_limit(limit)
        with self._database.transaction() as connection:
            found = [_entry(row) for row in connection.execute(chosen.limit(limit))]
            total = connection.execute(select(func.count()).select_from(chosen.order_by(None).subquery())).scalar_one()
        return Recalled(found, total - len(found))


def _entry(row: Row[Found]) -> Entry:
    return Entry(**{name: getattr(row, name) for name in _FIELDS})


def _find(connection: Connection, name: str) -> Entry:
    """By an id or its beginning. Raises UnknownName."""
    wanted = name.strip().lower()
    if len(wanted) >= 4 and wanted.isalnum():
        rows = connection.execute(select(entries).where(entries.c.id.startswith(wanted)).limit(2)).all()
        if len(rows) == 1:
            return _entry(rows[0])
        if rows:
            raise UnknownName(f"Several entries begin with {name!r}; give more of the id.")
    raise UnknownName(f"There is no entry {name[:80]!r}; give an id as they are listed, or four characters of it.")


def _known(connection: Connection, name: str | None) -> Entry | None:
    row = connection.execute(select(entries).where(entries.c.id == name)).first()
    return None if row is None else _entry(row)


def _same(connection: Connection, entry: Entry) -> Entry | None:
    """The current entry of the same words in the same namespace."""
    same = (entries.c.text == entry.text, entries.c.namespace == entry.namespace, entries.c.superseded_by.is_(None))
    row = connection.execute(select(entries).where(*same).limit(1)).first()
    return None if row is None else _entry(row)


def _newest(connection: Connection, entry: Entry) -> Entry:
    """What stands in the place of an entry now."""
    while (above := _known(connection, entry.superseded_by)) is not None:
        entry = above
    return entry


def _older(connection: Connection, entry: Entry) -> list[Entry]:
    """An entry, and all whose place it took, the newest first."""
    found, waiting = [entry], [entry.id]
    while waiting:
        below = select(entries).where(entries.c.superseded_by == waiting.pop()).order_by(entries.c.number.desc())
        more = [_entry(row) for row in connection.execute(below)]
        found += more
        waiting += [entry.id for entry in more]
    return found


def _check_kind(entry: Entry, over: Collection[str], done: str) -> None:
    if entry.kind not in over:
        raise NotAllowed(f"The entry {entry.id} was written by a {entry.kind}, and may not be {done} here.")


def _supersede(connection: Connection, old: str, new: str) -> None:
    connection.execute(update(entries).where(entries.c.id == old).values(superseded_by=new))
