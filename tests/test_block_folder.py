"""Saved blocks in a folder that fsspec reaches by URL: two servers share it, as they do a folder; what is refused.

A store in the memory of this process and one over the local disk stand for those of a network, whose own clients are
not covered. The folder of this machine is covered by ``test_serve_load`` and ``test_serve_disk``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import toy_engine
from kvorum.errors import BadRequest
from kvorum.serve.engine_thread.block_folder import block_folder
from kvorum.serve.settings import ServerSettings
from serving import served

A, B = ("block_" + digit * 24 for digit in "ab")


@pytest.fixture
def url() -> Iterator[str]:
    yield "memory://team/blocks"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_what_is_written_is_read(url: str, tmp_path: Path) -> None:
    for folder in (block_folder(url), block_folder(f"file://{tmp_path}/there"), block_folder(tmp_path / "here")):
        assert folder.all() == []
        folder.write(A, holding(b"one"), "{}")
        folder.write(A, holding(b"two"), '{"name": "ä"}')
        with pytest.raises(OSError, match="full"):
            folder.write(B, full, "{}")
        assert folder.all() == [A]
        assert folder.told(A) == '{"name": "ä"}'
        with folder.tensors(A) as path:
            assert path.read_bytes() == b"two"
        for _ in range(2):
            folder.delete(A)
        assert folder.all() == []
        with pytest.raises(FileNotFoundError):
            folder.told(A)


def holding(data: bytes) -> Callable[[Path], Path]:
    def save(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return save


def full(path: Path) -> Path:
    raise OSError("the disk is full")


def test_two_servers_share_it(url: str, tmp_path: Path) -> None:
    place = {"blocks": url}
    with (
        served(toy_engine.fake(name="toy"), tmp_path / "1", place=place) as one,
        served(toy_engine.fake(name="toy"), tmp_path / "2", place=place) as two,
    ):
        block = one.post("/v1/blocks", {"text": "The code is 4711."}).json()["id"]
        assert two.http.get(f"/v1/blocks/{block}").status_code == 404
        assert one.post(f"/v1/blocks/{block}/save").json()["saved"]
        assert two.http.get(f"/v1/blocks/{block}").json()["text"] == "The code is 4711."
        left = [path.name for path in Path(tempfile.gettempdir()).glob("kvorum-block-*")]
        assert left == []
        assert two.http.delete(f"/v1/blocks/{block}").status_code == 200
        assert block_folder(url).all() == []


class NoCredentials(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store whose client has errors of its own, as those of networks do."""

    protocol = "locked"

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        raise RuntimeError("Unable to locate credentials\nand more")

    cat_file = get_file = rm_file = makedirs = ls


def test_errors_of_a_store_are_named(tmp_path: Path) -> None:
    fsspec.register_implementation("locked", NoCredentials, clobber=True)
    folder = block_folder("locked://team/blocks")
    with pytest.raises(BadRequest, match=r"saved blocks cannot be read: Unable to locate credentials$"):
        folder.all()
    for does in (folder.told, folder.delete, lambda block: folder.write(block, holding(b"one"), "{}")):
        with pytest.raises(OSError, match=r"Unable to locate credentials$"):
            does(A)
    with pytest.raises(OSError, match=r"Unable to locate credentials$"), folder.tensors(A):
        pass


def test_what_is_no_place_is_refused() -> None:
    assert isinstance(ServerSettings.blocks_at("~/x"), Path)
    with pytest.raises(BadRequest, match="Blocks cannot be kept at nowhere://"):
        block_folder("nowhere://team")
