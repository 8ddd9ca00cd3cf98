"""Client libraries: three jobs of ``clients/`` against a tiny random model, and what the docs show of all of them.

Covers the jobs of openai, the MCP SDK and curl as they are (``make test-clients`` runs all, each in an environment of
its own, with a real model), and that the lines in ``docs/serve-clients.md`` stand in the jobs.
"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum import Engine
from serving import Served, served
from tiny_folder import tiny_folder

RUN = runpy.run_path(str(Path(__file__).parent / "clients" / "run.py"))
CLIENTS, job = RUN["CLIENTS"], RUN["job"]
PAGE = Path(__file__).parent.parent / "docs" / "serve-clients.md"
SECTION = re.compile(r"^## (.*?)\n\n```(?:python|js|sh)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
TITLES = {
    "mcp": "The MCP SDK",
    "ai": "ai (npm)",
    "langchain": "langchain-openai and LangGraph",
    "dspy": "DSPy",
    "crewai": "CrewAI",
}
"""Where a section is not named like the client."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    with served(Engine.load(tiny_folder(folder / "tiny")), folder / "store") as up:
        yield up


@pytest.mark.parametrize("name", ["openai", "mcp"])
def test_a_job_is_done_on_a_tiny_model(
    server: Served, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, f"{server.url}/v1", "tiny"])
    runpy.run_path(str(job(name)), run_name="__main__")
    assert capsys.readouterr().out.startswith("ok:")


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="needs curl and bash")
def test_the_job_of_curl_is_done_on_a_tiny_model(server: Served, tmp_path: Path) -> None:
    words = ["bash", str(job("curl")), f"{server.url}/v1", "tiny"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "ok:" in done.stdout


@pytest.mark.parametrize("name", CLIENTS)
def test_the_docs_show_lines_of_the_job(name: str) -> None:
    shown = dict(SECTION.findall(PAGE.read_text(encoding="utf-8")))[TITLES.get(name, name.replace("_", "-"))]
    lines = [line.strip() for line in shown.splitlines()]
    there = [line.strip() for line in job(name).read_text(encoding="utf-8").splitlines()]
    assert any(there[at : at + len(lines)] == lines for at in range(len(there))), shown
