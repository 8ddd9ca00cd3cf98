"""The index of a memory's words: what of a text is found, and in which order.

In SQLite it is a table of FTS5, ranked by BM25; in PostgreSQL a column of ``tsvector``, ranked by ``ts_rank``. Both cut
English endings and leave accents out, so that a query finds the same entries; but their *order* may differ, since
``ts_rank`` does not weigh rare words more.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from sqlalchemy import Column, Connection, Float, Integer, Subquery, text
from sqlalchemy.exc import DBAPIError

from kvorum.store.database.database import Database
from kvorum.store.database.sqlite import SqliteFile

_FOUND = (Column("number", Integer), Column("rank", Float))


class Words(Protocol):
    """An index of words; ``number`` is that of an entry."""

    ranked_by: str
    """By what the best are found, for people."""

    def make(self, connection: Connection) -> None:
        """Make it, empty."""

    def add(self, connection: Connection, number: int, words: str) -> None:
        """Let an entry be found by the words of its text."""

    def drop(self, connection: Connection, numbers: Sequence[int]) -> None:
        """Let entries be found no more."""

    def find(self, words: Sequence[str]) -> Subquery:
        """What has at least one of the words: ``number`` and ``rank``, less for what fits better."""

    def forgotten(self, database: Database) -> None:
        """See to it that nothing of what was deleted is left in files, as far as that is this program's to do."""


class SqliteWords:
    """A table of FTS5."""

    ranked_by = "bm25"

    def make(self, connection: Connection) -> None:
        """See ``Words``."""
        tokens = "porter unicode61 remove_diacritics 2"
        connection.exec_driver_sql(f"CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(body, tokenize='{tokens}')")

    def add(self, connection: Connection, number: int, words: str) -> None:
        """See ``Words``."""
        connection.execute(text("INSERT INTO words (rowid, body) VALUES (:n, :body)"), {"n": number, "body": words})

    def drop(self, connection: Connection, numbers: Sequence[int]) -> None:
        """See ``Words``."""
        connection.execute(text("DELETE FROM words WHERE rowid = :n"), [{"n": number} for number in numbers])

    def find(self, words: Sequence[str]) -> Subquery:
        """See ``Words``. Each word is quoted, so that none is read as a part of the language of FTS5."""
        query = " OR ".join(f'"{word}"' for word in words)
        found = text("SELECT rowid AS number, bm25(words) AS rank FROM words WHERE words MATCH :query")
        return found.bindparams(query=query).columns(*_FOUND).subquery()

    def forgotten(self, database: Database) -> None:
        """See ``Words``: writes the log into the file and empties it. Where others read, the last of them does so."""
        assert isinstance(database.dialect, SqliteFile)
        with suppress(DBAPIError):
            database.dialect.outside(database.engine, "INSERT INTO words(words) VALUES ('optimize')")
            database.dialect.outside(database.engine, "PRAGMA wal_checkpoint(TRUNCATE)")


_MAKE = """
CREATE TEXT SEARCH DICTIONARY kvorum_stems (TEMPLATE = snowball, Language = english);
CREATE TEXT SEARCH CONFIGURATION kvorum (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION kvorum ALTER MAPPING
  FOR asciiword, word, numword, asciihword, hword, hword_asciipart, hword_part WITH kvorum_stems;
CREATE TABLE words (number INTEGER PRIMARY KEY REFERENCES entries (number) ON DELETE CASCADE, body TSVECTOR NOT NULL);
CREATE INDEX words_body ON words USING gin (body)"""
"""Stems without a list of words that are not looked for, as SQLite's have none."""


class PostgresWords:
    """A column of ``tsvector``, in a configuration of our own."""

    ranked_by = "ts_rank"

    def make(self, connection: Connection) -> None:
        """See ``Words``."""
        for statement in _MAKE.split(";"):
            connection.exec_driver_sql(statement)

    def add(self, connection: Connection, number: int, words: str) -> None:
        """See ``Words``."""
        statement = text("INSERT INTO words (number, body) VALUES (:n, to_tsvector('kvorum', :body))")
        connection.execute(statement, {"n": number, "body": _bare(words)})

    def drop(self, connection: Connection, numbers: Sequence[int]) -> None:
        """See ``Words``. The rows go with those of their entries."""

    def find(self, words: Sequence[str]) -> Subquery:
        """See ``Words``. A word is letters, digits and underscores, and quoted: none is read as a part of a query."""
        query = " | ".join(f"'{bare}'" for word in words if (bare := _bare(word)))
        found = text(
            "SELECT number, -ts_rank(body, query, 1) AS rank FROM words, to_tsquery('kvorum', :query) AS query "
            "WHERE body @@ query"
        )
        return found.bindparams(query=query).columns(*_FOUND).subquery()

    def forgotten(self, database: Database) -> None:
        """See ``Words``: the server's own affair (VACUUM, its log, its copies)."""


def _bare(words: str) -> str:
    """Without accents; "_" ends a word, as in SQLite."""
    parts = unicodedata.normalize("NFKD", words.replace("_", " "))
    return " ".join("".join(sign for sign in parts if not unicodedata.combining(sign)).split())
