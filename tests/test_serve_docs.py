"""The pages about the server: their Python and curl, as they stand there, against `kvorum serve` with smollm2-135m.

Covers every block of Python and of the console in `PAGES`, each page from top to bottom in one namespace. The address
and nothing else is another one. Not covered: what pages say that a reply looks like.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kvorum import Engine
from serving import Served, served

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("serve-decisions.md", "serve-documents.md", "serve-responses.md", "serve-messages.md", "serve-mcp.md")
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    engine = Engine.load("smollm2-135m", kv_tokens=16384)
    with served(engine, tmp_path_factory.mktemp("store")) as up:
        yield up


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(
    server: Served, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "page"}
    blocks = list(BLOCK.finditer(text))
    assert blocks, "a page in the list has something to run"
    for block in blocks:
        words = block[2].replace(ADDRESS, server.url)
        if block[1] == "python":
            above = text.count("\n", 0, block.start(2))  # so that a failure names the line of the page
            exec(compile("\n" * above + words, str(DOCS / page), "exec"), names)
        elif shutil.which("curl"):
            _console(words)
    assert "None" not in capsys.readouterr().out


def _console(words: str) -> None:
    """Commands of curl; each is answered, and not with an error."""
    done = subprocess.run(["sh", "-ec", words.replace("curl ", "curl -sS --fail-with-body ")], capture_output=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    if not done.stdout.startswith((b"data:", b"event:")):
        json.loads(done.stdout)
