"""A copy of the package, to which a test adds what a contributor would."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import kvorum


def copy_package(folder: Path) -> Path:
    """The package, copied into ``folder``; returns where it lies."""
    copy: Path = shutil.copytree(
        Path(kvorum.__file__).parent, folder / "kvorum", ignore=shutil.ignore_patterns("__pycache__")
    )
    return copy


def add_line(file: Path, behind: str, line: str) -> None:
    """Put one line behind another one, which must be there."""
    text = file.read_text()
    assert f"{behind}\n" in text
    file.write_text(text.replace(f"{behind}\n", f"{behind}\n{line}\n"))


def said(folder: Path, code: str) -> list[str]:
    """The words that ``code`` prints with the copied package."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
