"""Entries of a memory: a text that was learnt, who wrote it, when, and what it takes the place of."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal, get_args

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json

Kind = Literal["person", "program", "model"]
"""Who can write an entry."""
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_CHARACTERS = 20_000
"""Of an entry; a longer text is a document, and belongs into a file."""
MOST_FOUND = 1_000
"""Entries that can be asked for at a time."""
NAMESPACE = "default"
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SOURCE = re.compile(rf"({'|'.join(KINDS)})(:[^\x00-\x1f\x7f-\x9f<>]{{1,64}})?")
_ID = re.compile(r"[0-9a-f]{12}")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST_WORD = 40


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was learnt. An entry never changes; one that takes its place stands beside it.

    ``source``: "person", "program" or "model", with a name behind a colon where there is one ("model:Alice").
    ``time``: seconds since 1970. ``supersedes``: the id of the entry that it took the place of; ``superseded_by``: of
    the one that took its own; None: it is current.
    """

    id: str
    text: str
    source: str
    time: float
    namespace: str = NAMESPACE
    supersedes: str | None = None
    superseded_by: str | None = None

    @property
    def kind(self) -> str:
        """Who wrote it: "person", "program" or "model"."""
        return self.source.partition(":")[0]

    @property
    def moment(self) -> str:
        """Its time as ISO 8601 has it, in UTC."""
        return datetime.fromtimestamp(self.time, UTC).isoformat().replace("+00:00", "Z")

    def as_dict(self) -> dict[str, Json]:
        """For JSON; the time as ISO 8601 has it."""
        return {**asdict(self), "time": self.moment}


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was found. ``entries``: the best or newest first; ``missing``: how many more there would have been."""

    entries: Sequence[Entry]
    missing: int = 0


def check_limit(limit: int) -> None:
    """Raises BadRequest where so many entries cannot be asked for."""
    if not 1 <= limit <= MOST_FOUND:
        raise BadRequest(f"limit={limit} must be from 1 to {MOST_FOUND:,}.")


def new_entry(
    text: str, namespace: str, source: str, *, moment: float | None = None, supersedes: str | None = None
) -> Entry:
    """An entry with an id of its own. Raises BadRequest: see ``checked``."""
    moment = round(time.time() if moment is None else moment, 6)
    return checked(Entry(secrets.token_hex(6), text, source, moment, namespace, supersedes))


def checked(entry: Entry) -> Entry:
    """The entry with its text as it is kept: plain line ends, no blanks around it.

    Raises:
        BadRequest: no text, too much of it, control characters in it; no namespace, source, id or time that can be.
    """
    check_namespace(entry.namespace)
    if not _SOURCE.fullmatch(entry.source):
        raise BadRequest(
            f"source={entry.source[:80]!r} does not say who wrote it; give person, program or model, with a name "
            "behind a colon where there is one, as in model:Alice; it has at most 64 characters, no angle brackets."
        )
    for name in (entry.id, entry.supersedes):
        if name is not None and not _ID.fullmatch(name):
            raise BadRequest(f"{name[:80]!r} is no id of an entry: twelve of the characters 0-9 and a-f.")
    if not 0 <= entry.time < 253_402_300_800:  # the year 10000
        raise BadRequest(f"time={entry.time} is not within the years 1970 to 9999.")
    return replace(entry, text=checked_text(entry.text))


def checked_text(text: str) -> str:
    """Text as an entry keeps it. Raises BadRequest: see ``checked``."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise BadRequest("There is nothing to remember; give a text.")
    if len(text) > MOST_CHARACTERS:
        raise BadRequest(
            f"The text has {len(text):,} characters, and an entry at most {MOST_CHARACTERS:,}; split it, or keep it as "
            "a file and ask about it."
        )
    if found := _CONTROL.search(text):
        raise BadRequest(f"The text holds the control character {found[0]!r} at {found.start() + 1:,}; take it out.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"The text holds {text[error.start]!r}, which cannot be written as UTF-8.") from None
    return text


def check_namespace(name: str) -> str:
    """The name. Raises BadRequest: it can be none."""
    if not _NAMESPACE.fullmatch(name):
        raise BadRequest(
            f"namespace={name[:80]!r} cannot be: give 1 to 64 letters, digits, dots, hyphens and underscores, the "
            "first of them a letter or digit."
        )
    return name


def searched_words(text: str) -> list[str]:
    """The words of a text as they are looked for, each once. Signs of scripts without blanks are words of their own."""
    parts = re.findall(r"\w+", _SPLIT.sub(r" \g<0> ", text.casefold()))
    return list(dict.fromkeys(part[:_LONGEST_WORD] for part in parts))


def indexed_words(text: str) -> str:
    """The words of a text as they are kept to be found."""
    return " ".join(part[:_LONGEST_WORD] for part in re.findall(r"\w+", _SPLIT.sub(r" \g<0> ", text.casefold())))


_SPLIT = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Han signs: they stand without blanks between words."""
