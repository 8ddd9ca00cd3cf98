"""The order of `make demo` and `make test`: what each would run in a fresh clone, after the other, and after an edit.

Recipes are printed, not run (``make -n``), on a copy of what they depend on. Does not cover what they do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEMO = ("made", "base", "wheel", "native")
KERNELS = "pip wheel"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "native", tmp_path / "native", ignore=shutil.ignore_patterns("build"))
    for path in tmp_path.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    (tmp_path / ".venv").mkdir()
    return tmp_path


def done(clone: Path, *stamps: str) -> None:
    """Steps that came to their end, as their stamps say."""
    for stamp in stamps:
        (clone / ".venv" / f".kvorum{'-' if stamp else ''}{stamp}").touch()


def would_run(clone: Path, goal: str) -> str:
    """All commands, nested calls of make among them."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    words = ["make", "-n", goal]
    return subprocess.run(words, cwd=clone, check=True, capture_output=True, text=True, env=env).stdout


def test_a_fresh_clone(clone: Path) -> None:
    demo = would_run(clone, "demo")
    assert demo.count("-m venv .venv") == 1
    assert demo.count("--editable .\n") == 1
    assert KERNELS in demo
    assert "[test]" not in demo
    assert demo.index(".kvorum-base") < demo.index("/kvorum demo")
    test = would_run(clone, "test")
    assert '--editable ".[test]"' in test
    assert KERNELS in test
    assert test.index('--editable ".[test]"') < test.index("--force-reinstall"), "two pips never write at once"


def test_one_after_the_other_does_what_is_missing(clone: Path) -> None:
    done(clone, *DEMO)
    again = would_run(clone, "demo")
    assert "pip" not in again
    assert "/kvorum demo" in again
    test = would_run(clone, "test")
    assert '--editable ".[test]"' in test
    assert KERNELS not in test
    done(clone, "")
    assert "pip install" not in would_run(clone, "test")
    assert "pip" not in would_run(clone, "demo")


@pytest.mark.parametrize("lost", DEMO)
def test_a_step_that_was_interrupted_is_done_again(clone: Path, lost: str) -> None:
    done(clone, *(stamp for stamp in DEMO if stamp != lost))
    assert f"touch .venv/.kvorum-{lost}" in would_run(clone, "demo")


def test_an_edited_kernel_is_built_and_nothing_else(clone: Path) -> None:
    done(clone, *DEMO)
    file = clone / "native" / "cpp" / "team.cpp"
    os.utime(file, (later := time.time() + 100, later))
    demo = would_run(clone, "demo")
    assert KERNELS in demo
    assert "--force-reinstall" in demo
    assert "--editable" not in demo
