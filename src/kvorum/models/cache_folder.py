"""The cache folder: where a model's files lie on this machine, and who may write there.

    <root>/models/<key>/<file>.gguf    the model as it was fetched, with its quantised tensors
    <root>/models/<key>/hf/            its float32 conversion: config, tokenizer, model.safetensors
    <root>/models/<key>/about/         configuration and tokenizer alone, for packed weights
    <root>/models/<key>/packed/        weights repacked for the native kernels
    <root>/models/<key>/work/          half-done things; emptied by whoever holds the lock next

The folders `hf` and `about` say in `kvorum.json` which version of conversions they hold (the first had no such file),
that everything in the GGUF file was accounted for (else they are made again), what of it was ignored, which
self-checks it passed, and what its files hold (`damage`).
<root> is $KVORUM_HOME, or the user's cache folder. Everything appears under its final name in one rename, so
what has a final name is whole. Fetching and converting are elsewhere.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvorum import wording
from kvorum.errors import ModelFileError
from kvorum.jsontypes import Json
from kvorum.models.catalogue import CATALOGUE, Entry, out_of_memory
from kvorum.models.progress import Progress, silent
from kvorum.versions import CONVERSION

_VERSION_FILE = "kvorum.json"
_CHECKS = "checks-2"
"""Where self-checks are kept; the first, under "checks", looked at no windows, and are made again."""


@dataclass(frozen=True)
class ModelFolder:
    """The paths of one model in the cache; none of them need exist."""

    path: Path
    gguf: Path

    @property
    def hf(self) -> Path:
        return self.path / "hf"

    @property
    def packed(self) -> Path:
        return self.path / "packed"

    @property
    def about(self) -> Path:
        """Configuration and tokenizer alone, for packed weights."""
        return self.path / "about"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def partial(self) -> Path:
        """The GGUF file while it grows; kept when a pull is interrupted."""
        return self.path / (self.gguf.name + ".part")

    @property
    def on_disk(self) -> int:
        """Bytes of all that lies here now."""
        return sum(sizes_under(self.path))

    def converted(self) -> bool:
        """Whether the float32 conversion is there. Raises `OtherVersion`: a later kvorum made it."""
        return _whole(self.hf, "config.json", "model.safetensors")

    def described(self) -> bool:
        """Whether configuration and tokenizer are there. Raises `OtherVersion`: a later kvorum wrote them."""
        return _whole(self.about, "config.json")


def mark_version(folder: Path, unknown: Sequence[str] = ()) -> None:
    """Write into a folder which version of conversions it holds, and which of its file's unknown parts were ignored."""
    mark = {"version": CONVERSION.newest, "accounted": True, "ignored": list(unknown)}
    (folder / _VERSION_FILE).write_text(json.dumps(mark), encoding="utf-8")


def ignored(folder: Path) -> list[str]:
    """The keys and tensors that were not known and ignored when a conversion was made."""
    return [str(name) for name in read_mark(folder).get("ignored", ())]


def kept_checks(folder: Path) -> dict[str, dict[str, Json]]:
    """The self-checks that a conversion has passed, by how its weights were held."""
    found: dict[str, dict[str, Json]] = read_mark(folder).get(_CHECKS, {})
    return found


def keep_check(folder: Path, weights: str, found: dict[str, Json]) -> None:
    """Add a self-check that a conversion has passed."""
    change_mark(folder, _CHECKS, {weights: found})


@contextmanager
def dropping(*folders: Path) -> Iterator[None]:
    """Within the context what is in folders is tried; where that fails they are removed, but for want of memory, which
    says nothing of them."""
    try:
        yield
    except Exception as error:
        for folder in folders if not out_of_memory(error) else ():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def change_mark(folder: Path, entry: str, values: dict[str, Any]) -> None:
    """Add to an entry of a conversion's mark; where the cache cannot be written it stays as it is."""
    mark = read_mark(folder)
    mark[entry] = {**mark.get(entry, {}), **values}
    partial = folder / f"{_VERSION_FILE}.{os.getpid()}.part"
    with suppress(OSError):
        partial.write_text(json.dumps(mark), encoding="utf-8")
        os.replace(partial, folder / _VERSION_FILE)


def read_mark(folder: Path) -> dict[str, Any]:
    """What a conversion says of itself. Raises `ModelFileError`: it is damaged."""
    mark = folder / _VERSION_FILE
    try:
        found = json.loads(mark.read_text(encoding="utf-8")) if mark.is_file() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ModelFileError(f"{mark} is damaged: it is no JSON; remove {folder}, and it is made again.")
    return found


def _whole(folder: Path, *files: str) -> bool:
    """Whether a conversion is there that was made when everything in a file was accounted for; others are remade."""
    if not all((folder / file).is_file() for file in files):
        return False
    mark = read_mark(folder)
    CONVERSION.version(mark.get("version", 1), folder)  # the first had no mark
    return bool(mark.get("accounted"))


def cache_root() -> Path:
    """$KVORUM_HOME, or kvorum's folder in the user's cache folder."""
    home = os.environ.get("KVORUM_HOME")
    if home:
        return Path(home).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("kvorum"))


def entry_folder(entry: Entry) -> ModelFolder:
    """Where a catalogue model lies."""
    path = cache_root() / "models" / entry.name
    return ModelFolder(path, path / entry.file)


def shard_paths(path: Path) -> list[Path]:
    """All shards of a split file by the name of one of them, whether they are there or not; of another file itself."""
    found = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.gguf", path.name)
    if found is None:
        return [path]
    count = int(found[2])
    return [path.with_name(f"{found[1]}-{at:05d}-of-{count:05d}.gguf") for at in range(1, count + 1)]


def gguf_folder(gguf: Path) -> ModelFolder:
    """Where the conversion of a GGUF file from elsewhere lies; another size or time is another folder."""
    shards = [path for path in shard_paths(gguf) if path.is_file()]
    # the shards of a split file are found by their names, which links to them have and what they link to may not
    gguf = gguf.resolve() if len(shards) == 1 else gguf.parent.resolve() / gguf.name
    for entry in CATALOGUE.values():
        folder = entry_folder(entry)
        if folder.gguf.resolve() == gguf:
            return folder
    stats = "".join(f"\n{stat.st_size}\n{stat.st_mtime_ns}" for stat in map(Path.stat, shards))
    key = hashlib.sha256(f"{gguf}{stats}".encode()).hexdigest()[:16]
    return ModelFolder(cache_root() / "models" / f"{gguf.stem[:60]}-{key}", gguf)


@contextmanager
def writing(folder: ModelFolder, progress: Progress = silent) -> Iterator[Path]:
    """Hold the model's lock and yield its empty work folder; the folder is gone afterwards.

    Raises `ModelFileError` if the cache cannot be written, or when the disk fills up inside the block.
    """
    from filelock import FileLock, Timeout

    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.path):
            pass  # a folder that cannot be written says so here: its lock file may be there from before
        lock = FileLock(folder.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress("wait", 0, 1)
            lock.acquire()
        try:
            shutil.rmtree(folder.work, ignore_errors=True)
            folder.work.mkdir()
            yield folder.work
        finally:
            shutil.rmtree(folder.work, ignore_errors=True)
            lock.release()
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(_reason(error, folder.path)) from error


def _reason(error: OSError, where: Path) -> str:
    """What the operating system refused under `where`, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full while writing to {where}; free some space or set KVORUM_HOME to a folder "
            "on another disk, and run the same command again."
        )
    reason = error.strerror or str(error)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"The cache folder {where} cannot be written ({reason}); set KVORUM_HOME to a folder that you can write."
    return f"The cache folder {where} cannot be used: {reason}."


def need_space(where: Path, needed: int, doing: str) -> None:
    """Raise `ModelFileError` if the disk of `where` has less than `needed` bytes free."""
    free = shutil.disk_usage(where).free
    if free < needed:
        raise ModelFileError(
            f"{doing} needs {wording.size(needed)} of disk space in {where}, but only {wording.size(free)} are free; "
            "free some space or set KVORUM_HOME to a folder on another disk."
        )


def sizes_under(path: Path, pattern: str = "*") -> list[int]:
    """Bytes of every file under `path` whose name fits; what is moved or removed meanwhile is left out.

    `os.walk` and not `Path.rglob`: the latter raises when a folder goes away between its listing and its visit.
    """
    sizes = []
    for folder, _, files in os.walk(path):
        for name in fnmatch.filter(files, pattern):
            with suppress(OSError):
                sizes.append(os.lstat(os.path.join(folder, name)).st_size)
    return sizes
