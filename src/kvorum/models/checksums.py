"""Whether the files of a conversion are as they were written: a hash of each tensor, and of each file without tensors.

The hashes stand in the conversion's `kvorum.json` with the size and time of the file that they are of. A file that has
these still is not read again, so a start pays for a look at its time alone; a file that was touched, copied or damaged
is hashed, and what differs is named. Not covered: a disk that changes bytes and says nothing of it.
"""

from __future__ import annotations

import json
import mmap
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kvorum.errors import ModelFileError
from kvorum.jsontypes import Json
from kvorum.models.cache_folder import change_mark, read_mark


def record(folder: Path, *files: Path) -> None:
    """Write into the mark of a conversion what its files hold now."""
    change_mark(folder, "files", {file.name: {"stamp": _stamp(file), "parts": _hashes(file)} for file in files})


def verify(folder: Path, *files: Path) -> None:
    """Raise `ModelFileError` if one of the files is not as it was recorded; what was not is recorded now."""
    kept = read_mark(folder).get("files", {})
    fresh = []
    for file in files:
        known = kept.get(file.name)
        if known is None:
            fresh.append(file)
        elif known["stamp"] != _stamp(file):
            found = _hashes(file)
            if wrong := [part for part, value in known["parts"].items() if found.get(part) != value]:
                raise ModelFileError(
                    f"{file} is damaged: {wrong[0]} is not as it was written; remove {file.parent}, "
                    "and it is made again."
                )
            fresh.append(file)
    if fresh:
        record(folder, *fresh)


def _stamp(file: Path) -> list[Json]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _hashes(file: Path) -> dict[str, Json]:
    """The crc32 of each tensor of a safetensors file by its name and of what stands before them; else of the file."""
    with file.open("rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else b""
    view = memoryview(data)
    parts = {"its text": (0, len(view))}
    if file.suffix == ".safetensors":
        start = 8 + int.from_bytes(view[:8], "little")
        parts = {"its header": (0, start)}
        try:
            header = json.loads(bytes(view[8:start]))
            parts |= {name: tuple(at["data_offsets"]) for name, at in header.items() if name != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError, MemoryError, OverflowError):
            header = {}  # the header's own hash says so
        parts = {name: (a + start, b + start) if name != "its header" else (a, b) for name, (a, b) in parts.items()}

    def crc(at: tuple[int, int]) -> int:
        return zlib.crc32(view[at[0] : at[1]])

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(parts, pool.map(crc, parts.values()), strict=True))
