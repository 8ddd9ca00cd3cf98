"""The trace of a run as it is written: one JSON object a line, enough to replay the run token for token.

A trace is written as the run goes, so a killed run leaves all ticks but the one in flight. It calls blocks by names for
people, and by numbers for whoever draws them, since a worker that begins afresh writes to a new block of the old name.
What the events are says ``store.events``; reading is in ``store.traces``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from kvorum.engine.row import Row
from kvorum.errors import BadRequest
from kvorum.kv import Block, Gap, Span, View
from kvorum.store.events import Event, FedRow, MovedSpan, ViewItem, as_json


class Trace:
    """Collects events, writes them to ``path`` as they come, and hands each to ``listener``."""

    def __init__(self, path: str | Path | None = None, listener: Callable[[Event], None] | None = None) -> None:
        self.events: list[Event] = []
        self.path = None if path is None else Path(path)
        self._listener = listener
        self._file: IO[str] | None = None
        self._beside: Path | None = None

    def open(self, replaying: bool) -> None:
        """Begin writing. A run that is resumed is written beside its old trace until it has repeated that.

        Raises:
            BadRequest: the file's folder is not there; none is made.
        """
        if self.path is None:
            return
        check_folder(self.path)
        self._beside = self.path.with_name(self.path.name + ".resumed") if replaying else None
        self._file = (self._beside or self.path).open("w", encoding="utf-8")

    def replace_old(self) -> None:
        """Let what was written take the place of the old trace, all of which it repeats now."""
        if self._beside is not None and self.path is not None:
            if self._file is not None:
                self._file.flush()
            os.replace(self._beside, self.path)
            self._beside = None

    def add(self, event: Event) -> None:
        """Record one event: kept, written as a line, and handed to the listener, in this order."""
        self.events.append(event)
        if self._file is not None:
            self._file.write(as_json(event) + "\n")
            self._file.flush()
        if self._listener is not None:
            self._listener(event)

    def close(self) -> None:
        """End writing. A resumed run that has not repeated its old trace leaves that as it was."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._beside is not None:
            self._beside.unlink(missing_ok=True)
            self._beside = None


def check_folder(path: Path) -> None:
    """Raises BadRequest where the folder that ``path`` is to be written to is not there."""
    if not path.parent.is_dir():
        raise BadRequest(f"The trace {path} cannot be written: there is no folder {path.parent}; make it first.")


class BlockNumbers:
    """The numbers of the blocks that one trace has spoken of, in that order: the same in every replay."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def number(self, block: Block) -> int:
        """The block's number in this trace; the next free one if the trace has not spoken of it yet."""
        return self._numbers.setdefault(block.uid, len(self._numbers))

    def view(self, view: View) -> list[ViewItem]:
        """The view's items, in order."""
        return [self._item(item) for item in view.items]

    def _item(self, item: Span | Gap) -> ViewItem:
        if isinstance(item, Gap):
            return ("gap", 0, len(item), None, len(item))
        block, number = item.block, self.number(item.block)
        if item.at is None:
            return (block.name, item.lo, item.hi, number, len(block))
        return (block.name, item.lo, item.hi, number, len(block), item.at)

    def spans(self, items: Sequence[Block | Span]) -> list[MovedSpan]:
        """Each item as (block number, from token, to token)."""
        spans = [item if isinstance(item, Span) else Span(item) for item in items]
        return [(self.number(span.block), span.lo, span.lo + len(span)) for span in spans]

    def rows(self, rows: Sequence[Row]) -> list[FedRow]:
        """Of each row that writes to a block: (the block's number, how many tokens)."""
        return [(self.number(row.view.own), row.count) for row in rows if row.view.own is not None]
