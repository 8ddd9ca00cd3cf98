"""What a start of the command imports: nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvorum.cli import main


def test_lists_do_not_wait_for_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = (
        "import sys; from kvorum.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 'torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert main(["programs"]) == 0  # once imported, what they declare is kept
    lists = (["models"], ["programs"], ["programs", "tree"], ["programs", "--json"], ["completion", "fish"], ["--help"])
    for words in (*lists, ["solve", "x", "--program", "hogwlid"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert done.returncode == (2 if "hogwlid" in words else 0), done.stderr


def test_a_start_imports_no_library_of_other_programs() -> None:
    code = (
        "import sys, kvorum.api, kvorum.cli.solve, kvorum.cli.ask, kvorum.cli.fields, kvorum.cli.decide; "
        "slow = {'networkx', 'mcp', 'transformers', 'sqlalchemy', 'jsonschema', 'pydantic', 'starlette', 'gguf'}; "
        "print(slow & set(sys.modules)); import kvorum.serve.app; print({'networkx', 'mcp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nset()\n"
