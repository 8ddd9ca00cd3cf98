"""Both distributions, built and installed where no repository is: what `pip install 'kvorum[native]'` will bring.

Covers: sdist and wheel of kvorum and of kvorum-native (each wheel is built from its sdist); what lies in them beside
the modules; the installed command in an empty environment and folder: solve with the native kernels, serve with every
file of its page, a study with its report. Not covered: other systems than this one, and GPUs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "src" / "kvorum" / "serve" / "page"
MODEL = "smollm2-135m"
# Of this version pip finds a build for CPUs, as in the Makefile; the range that the package allows may bring CUDA.
TORCH = "torch==2.13.0"
STUDY = """
name: tiny
models: [smollm2-135m]
items: 1
budgets: [8]
tasks: [{family: lists, wanted: 4}]
arms:
  - {program: hogwild, channels: [cache], workers: [2]}
  - {program: solo, match: [ticks]}
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def outside() -> dict[str, str]:
    """The environment without anything that leads back into the repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def call(*words: str | Path, cwd: Path) -> str:
    """Run a command to its end; its output. Fails with all that it said."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=outside(), capture_output=True, text=True)
    assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both sdists and both wheels."""
    folder = tmp_path_factory.mktemp("dist")
    for source in (ROOT, ROOT / "native"):
        call(sys.executable, "-m", "build", "--outdir", folder, source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def home(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the environment `env`, into which nothing but the wheels and what they ask for was installed."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", with_pip=True)
    (wheel,) = dist.glob("kvorum-*.whl")
    python = folder / "env" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--find-links", dist)
    call(*pip, TORCH, f"{wheel}[native,serve,lab]", cwd=folder)
    return folder


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """`kvorum serve` as installed; its address."""
    command, store = home / "env/bin/kvorum", home / "runs"
    words = [str(command), "serve", "--model", MODEL, "--port", "0", "--store", str(store)]
    with subprocess.Popen(words, cwd=home, env=outside(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_distributions_hold_their_files(dist: Path) -> None:
    (wheel,) = dist.glob("kvorum-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "kvorum"
    kept = {path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {f"kvorum/{path.relative_to(package).as_posix()}" for path in kept} <= names
    assert "kvorum/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)

    (native,) = dist.glob("kvorum_native-*.whl")
    names = set(zipfile.ZipFile(native).namelist())
    assert any(name.startswith("kvorum_native/_native.") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)

    (source,) = dist.glob("kvorum-*.tar.gz")
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "src/kvorum/__init__.py"} <= inside
    assert not [name for name in inside if name.startswith(("native/", ".ci"))]


def test_solve(home: Path) -> None:
    where = call(home / "env/bin/python", "-c", "import kvorum; print(kvorum.__file__)", cwd=home).strip()
    assert Path(where).is_relative_to(home / "env")
    words = (
        "solve",
        "What is 2 + 3?",
        "--model",
        MODEL,
        "-p",
        "hogwild",
        "--workers",
        "2",
        "--budget",
        "16",
        "--seed",
        "1",
    )
    told = json.loads(call(home / "env/bin/kvorum", *words, "--trace", "run.jsonl", "--json", cwd=home))
    assert told["program"] == "hogwild"
    assert told["ledger"]["decoded"] > 0
    assert told["model"]["weights"] == "packed", "kvorum[native] brought the kernels"
    again = json.loads(call(home / "env/bin/kvorum", "replay", "run.jsonl", "--json", cwd=home))
    assert again["identical"] is True


def test_serve_with_its_page(home: Path) -> None:
    with serving(home) as url, httpx.Client(base_url=url, timeout=120) as http:
        page = http.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        waiting = {urljoin("/", name) for name in re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)}
        seen: set[str] = set()
        while waiting:
            path = waiting.pop()
            seen.add(path)
            got = http.get(path)
            assert got.status_code == 200, path
            assert got.text == (PAGE / path.rpartition("/")[2]).read_text(encoding="utf-8")
            waiting |= {urljoin(path, name) for name in re.findall(r'from "(\./[^"]+)"', got.text)} - seen
        assert {path.rpartition("/")[2] for path in seen} == {file.name for file in PAGE.iterdir()} - {"index.html"}

        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8}
        reply = http.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        assert reply.json()["usage"]["completion_tokens"] <= 8


def test_study(home: Path) -> None:
    (home / "tiny.yaml").write_text(STUDY, encoding="utf-8")
    call(home / "env/bin/kvorum", "study", "run", "tiny.yaml", cwd=home)
    call(home / "env/bin/kvorum", "study", "report", "tiny.yaml", cwd=home)
    results = home / "tiny-results"
    assert len((results / "cells.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert (results / "table.csv").is_file()
    assert "hogwild" in (results / "report.md").read_text(encoding="utf-8")
