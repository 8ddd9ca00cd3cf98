"""Where saved blocks lie: a folder of this machine, or one of another store by its URL, such as ``s3://team/blocks``.

Each is a text that tells of it and a file of its tokens, keys and values. What lies elsewhere is reached by fsspec,
with the packages and the credentials that it takes for that kind of store; a block's tensors are brought here to be
read, and are gone from here afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from kvorum.errors import BadRequest
from kvorum.wording import first_line

TOLD, TENSORS = "json", "safetensors"


class BlockFolder(Protocol):
    """What may be done with saved blocks. Each method may raise OSError."""

    def all(self) -> Sequence[str]:
        """The ids of all that are whole."""

    def told(self, block: str) -> str:
        """What is told of one."""

    @contextmanager
    def tensors(self, block: str) -> Iterator[Path]:
        """Within it, its tensors are a file of this machine."""

    def write(self, block: str, save: Callable[[Path], Path], told: str) -> None:
        """Write one, which is there once it is whole. ``save`` writes its tensors to a file of this machine."""

    def delete(self, block: str) -> None:
        """Forget it, if it is there."""


def block_folder(where: Path | str) -> BlockFolder:
    """The folder at a path or URL. Raises BadRequest where a URL cannot be used here."""
    return BlocksElsewhere(where) if isinstance(where, str) else BlocksHere(where)


class BlocksHere:
    """In a folder of this machine, or a mounted one; made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> Sequence[str]:
        """The ids of all that are whole."""
        return sorted(path.stem for path in self._folder.glob(f"block_*.{TOLD}"))

    def told(self, block: str) -> str:
        """What is told of one."""
        return (self._folder / f"{block}.{TOLD}").read_text(encoding="utf-8")

    @contextmanager
    def tensors(self, block: str) -> Iterator[Path]:
        """The file itself."""
        yield self._folder / f"{block}.{TENSORS}"

    def write(self, block: str, save: Callable[[Path], Path], told: str) -> None:
        """Write one; its text last, in one step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        save(self._folder / f"{block}.{TENSORS}")
        partial = self._folder / f"{block}.part"
        partial.write_text(told, encoding="utf-8")
        os.replace(partial, self._folder / f"{block}.{TOLD}")

    def delete(self, block: str) -> None:
        """Forget it, if it is there."""
        for end in (TOLD, TENSORS):
            (self._folder / f"{block}.{end}").unlink(missing_ok=True)


class BlocksElsewhere:
    """In a folder that fsspec reaches by its URL.

    Raises:
        BadRequest: fsspec does not know its kind, or needs a package for it; later, it cannot be listed.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self._files, path = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise BadRequest(f"Blocks cannot be kept at {url.partition('://')[0]}://: {first_line(error)}") from error
        self._path = str(path).rstrip("/")

    def _at(self, block: str, end: str) -> str:
        return f"{self._path}/{block}.{end}"

    def all(self) -> Sequence[str]:
        """The ids of all that are whole; none where there is no such folder yet."""
        self._files.invalidate_cache()  # others write there
        try:
            with _as_oserror():
                names = [str(name).rpartition("/")[2] for name in self._files.ls(self._path, detail=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BadRequest(f"The folder of saved blocks cannot be read: {first_line(error)}") from error
        return sorted(name.removesuffix(f".{TOLD}") for name in names if name.endswith(f".{TOLD}"))

    def told(self, block: str) -> str:
        """What is told of one."""
        with _as_oserror():
            found = bytes(self._files.cat_file(self._at(block, TOLD)))
        return found.decode("utf-8")

    @contextmanager
    def tensors(self, block: str) -> Iterator[Path]:
        """A copy, for as long as it is needed."""
        with TemporaryDirectory(prefix="kvorum-block-") as folder:
            copy = Path(folder) / f"{block}.{TENSORS}"
            with _as_oserror():
                self._files.get_file(self._at(block, TENSORS), str(copy))
            yield copy

    def write(self, block: str, save: Callable[[Path], Path], told: str) -> None:
        """Write one; its text, by which it is found, last."""
        with TemporaryDirectory(prefix="kvorum-block-") as folder:
            copy = Path(folder) / f"{block}.{TENSORS}"
            save(copy)
            with _as_oserror():
                self._files.makedirs(self._path, exist_ok=True)
                self._files.put_file(str(copy), self._at(block, TENSORS))
        with _as_oserror():
            self._files.pipe_file(self._at(block, TOLD), told.encode())

    def delete(self, block: str) -> None:
        """Forget it, if it is there."""
        for end in (TOLD, TENSORS):
            with suppress(FileNotFoundError), _as_oserror():
                self._files.rm_file(self._at(block, end))


@contextmanager
def _as_oserror() -> Iterator[None]:
    """Clients of stores have errors of their own, as of credentials that are missing."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(first_line(error)) from error
