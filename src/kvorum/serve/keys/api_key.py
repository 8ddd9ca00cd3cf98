"""API keys and the file that they come from.

A key is held as the SHA-256 of its text alone: nothing that shows a key can show what opens the server.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from kvorum.errors import BadRequest
from kvorum.store.run_tables import NOBODY

SHORTEST = 8
"""Characters that a key has at least."""
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")]
_PerMinute = Annotated[StrictInt, Field(ge=1, lt=2**31)]


class ApiKey(BaseModel):
    """Who may use the server, under a ``name`` that owns what is made with it.

    ``digests``: the SHA-256 of each text that opens it. ``models``: those that it may ask; none: all.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    digests: tuple[bytes, ...] = Field(repr=False)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    models: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str, name: str = NOBODY) -> ApiKey:
        """A key without limits. Raises BadRequest for a text that is too short."""
        return cls(name=name, digests=(_digest(text),))


class _Entry(BaseModel):
    """A table ``[[keys]]`` of the file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: _Name
    key: str | list[str] = Field(default_factory=list)
    sha256: str | list[str] = Field(default_factory=list)
    requests_per_minute: _PerMinute | None = None
    tokens_per_minute: _PerMinute | None = None
    models: list[str] = Field(default_factory=list)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keys: list[_Entry] = Field(min_length=1, max_length=10_000)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a file in TOML, a table ``[[keys]]`` each.

    Raises:
        BadRequest: it cannot be read, or says what no key can be; never with the text of a key in it.
    """
    try:
        found = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadRequest(f"The file of keys {path} cannot be read: {error.strerror}.") from None
    except (UnicodeError, tomllib.TOMLDecodeError):
        raise BadRequest(f"The file of keys {path} is not TOML; docs/serve-keys.md has an example.") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BadRequest(f"The file of keys {path}: {place}: {first['msg']}.") from None
    return tuple(_key(entry, f"{path}: the key {entry.name}") for entry in found.keys)


def _key(entry: _Entry, place: str) -> ApiKey:
    texts, hashes = _list(entry.key), _list(entry.sha256)
    if not texts and not hashes:
        raise BadRequest(f"{place} has neither key nor sha256; give one.")
    digests = [_digest(text, place) for text in texts]
    for one in hashes:
        try:
            digests.append(bytes.fromhex(one))
        except ValueError:
            digests.append(b"")
        if len(digests[-1]) != hashlib.sha256().digest_size:
            raise BadRequest(f"{place}: sha256 is 64 hexadecimal digits, as `sha256sum` prints them.")
    return ApiKey(
        name=entry.name,
        digests=tuple(digests),
        requests_per_minute=entry.requests_per_minute,
        tokens_per_minute=entry.tokens_per_minute,
        models=tuple(entry.models),
    )


def check_keys(keys: Sequence[ApiKey]) -> None:
    """Raises BadRequest where two have one name or are opened by one text."""
    names, digests = [key.name for key in keys], [digest for key in keys for digest in key.digests]
    for at, name in enumerate(names):
        if name in names[:at]:
            hint = "; --api-key is the key of that name" * (name == NOBODY)
            raise BadRequest(f"Two keys are named {name}: names own what is made, and must differ{hint}.")
    if len(set(digests)) < len(digests):
        raise BadRequest("One text opens two keys; each needs a text of its own.")


def find_key(keys: Sequence[ApiKey], given: bytes) -> ApiKey | None:
    """The key that ``given`` opens. All are compared, each in constant time, so that the time tells nothing."""
    digest, found = hashlib.sha256(given).digest(), None
    for key in keys:
        for each in key.digests:
            if hmac.compare_digest(digest, each):
                found = key
    return found


def _digest(text: str, place: str = "An API key") -> bytes:
    if len(text) < SHORTEST:
        raise BadRequest(f"{place} needs at least {SHORTEST} characters.")
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise BadRequest(f"{place} has characters that no header can carry; give letters, digits and signs.")
    return hashlib.sha256(text.encode()).digest()


def _list(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given
