"""Ray as people start it: a head of its own, `serve run` with words or a YAML file, `kvorum study run --ray ADDRESS`.

``make test-ray``; skipped where there is no Ray. Covers: arguments that come as texts and as numbers, a reply of the
application, its end by Ctrl-C, and the same table of a study as on one machine. Not covered: several machines, GPUs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from studies_made import rows
from tiny_folder import tiny_folder

PATIENCE = 240.0
"""Seconds for a start of Ray's on a busy machine."""
TOKEN = secrets.token_hex(32)
"""What who speaks to the cluster of these tests has to know."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'kvorum[ray]'."),
]


def free_port() -> int:
    with closing(socket.socket()) as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def environment(folder: Path) -> dict[str, str]:
    """What commands are given: these sources, a cache of their own, and a Ray that is patient."""
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    patient = {f"RAY_SERVE_PROXY_{limit}_CHECK_TIMEOUT_S": "120" for limit in ("READY", "HEALTH")}
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}  # the tests' cluster is theirs alone
    return {
        **os.environ,
        **patient,
        **own,
        "PYTHONPATH": paths,
        "KVORUM_HOME": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def start(name: str, *words: str, **options: Any) -> subprocess.Popen[str]:
    """A command that Ray or kvorum installs, in a group of processes of its own."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found is not None
    return subprocess.Popen(
        [found, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **options
    )


def done(name: str, *words: str, **options: Any) -> str:
    """What such a command says, once it has ended well."""
    said, _ = (process := start(name, *words, **options)).communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def head(home: Path) -> Iterator[str]:
    """The address of a cluster that `ray start` has started, and that ends with the tests."""
    port = free_port()
    words = ["--head", "--block", "--port", str(port), "--node-ip-address", "127.0.0.1", "--num-cpus", "2"]
    small = ["--include-dashboard", "false", "--object-store-memory", str(100 * 2**20)]
    process = start("ray", "start", *words, *small, env=environment(home))
    try:
        end = time.monotonic() + PATIENCE
        while not answers(port):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.parametrize("how", ["words", "yaml"])
def test_serve_run(how: str, head: str, home: Path, model: Path, tmp_path: Path) -> None:
    """Of KEY=VALUE each argument is a text; in YAML numbers are numbers."""
    port, told = free_port(), {"model": str(model), "quantize": "none", "dtype": "float32"}
    numbers = {"replicas": 1, "cpus": 0.2, "kv_tokens": 4096, "requests": 8}
    if how == "words":
        done("serve", "start", "--address", head, "--http-port", str(port), env=environment(home))
        words = ["kvorum.serve.ray:app", *(f"{key}={value}" for key, value in {**told, **numbers}.items())]
    else:
        one = {"name": "kvorum", "import_path": "kvorum.serve.ray:app", "args": {**told, **numbers}}
        file = tmp_path / "kvorum.yaml"
        file.write_text(yaml.safe_dump({"http_options": {"port": port}, "applications": [one]}))
        words = [str(file)]
    process = start("serve", "run", "--address", head, *words, env=environment(home))
    try:
        end = time.monotonic() + PATIENCE
        body = {"model": "tiny", "prompt": "Two rivers", "max_tokens": 4}
        while True:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            try:
                reply = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=60)
                if reply.status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        assert reply.json()["usage"]["completion_tokens"] >= 1
        assert reply.headers["x-kvorum-replica"]
    finally:
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/health", timeout=10)


def test_a_study_on_a_cluster_that_is_up(head: str, home: Path, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    told = {
        "name": "small",
        "models": [str(model)],
        "items": 2,
        "budgets": [6],
        "tasks": [{"family": "bundle", "parts": 2}],
        "arms": [{"program": "solo"}, {"program": "vote", "workers": [2]}],
        "concurrency": 2,
    }
    file.write_text(yaml.safe_dump(told))
    tables = []
    for name, words in (("alone", []), ("spread", ["--ray", head])):
        done("kvorum", "study", "run", str(file), "--output", str(tmp_path / name), *words, env=environment(home))
        tables.append(rows(tmp_path / name))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 4
