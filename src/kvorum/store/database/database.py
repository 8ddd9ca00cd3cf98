"""Tables of one kind in a file or a database, and transactions over them, with errors that say what to do."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from kvorum.errors import KvorumError
from kvorum.store.database.dialect import Dialect, Step
from kvorum.versions import Form


class Database:
    """The tables of ``form``, opened, with ``steps[n]`` bringing them from version n to n + 1.

    Raises:
        ``refused``: it cannot be opened; what is there is left as it is. The form's error: a later kvorum wrote it.
        ``failed``: of ``transaction``.
    """

    def __init__(
        self,
        dialect: Dialect,
        form: Form,
        steps: Sequence[Step],
        *,
        refused: type[KvorumError],
        failed: type[Exception],
    ) -> None:
        self.dialect, self._what, self._failed = dialect, form.what, failed
        assert len(steps) == form.newest
        try:
            self.engine = dialect.open(form, steps)
        except DBAPIError as error:
            raise refused(dialect.why(error, form.what)) from None
        except OSError as error:
            if isinstance(error, KvorumError):
                raise
            why = error.strerror or error
            raise refused(f"The {form.what} {dialect.place} cannot be written: {why}; name another.") from error
        weakref.finalize(self, self.engine.dispose)  # where nobody closes it; from 3.13 on, Python warns

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        """All of it or nothing; one that writes waits for other writers first.

        Raises:
            ``failed``: the message says why; nothing was written.
        """
        try:
            with closing(self.dialect.begin(self.engine, writes)) as connection:
                yield connection
                connection.commit()
        except DBAPIError as error:
            raise self._failed(self.dialect.why(error, self._what)) from error
        except PendingRollbackError as error:
            raise self._failed(f"The {self._what} {self.dialect.place} lost its connection; try again.") from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
