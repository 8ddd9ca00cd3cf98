"""How much is kept on disk: within the size at every file, and the folder is looked through only where others wrote.

What the files hold, damaged ones and half-written ones are in ``test_kept_blocks``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from kvorum.store.kept_files import KeptFiles


class Looking(KeptFiles):
    """Counts how often the folder is looked through, and keeps files of a hundred bytes."""

    looks = 0

    def trim(self) -> None:
        self.looks += 1
        super().trim()

    def put(self, name: str, model: str = "model") -> Path:
        path = self.folder / model / name

        def write() -> None:
            path.write_bytes(b"x" * 100)
            self.use(path)

        self.add(path, write)
        return path

    moment = 1000

    def use(self, path: Path) -> None:
        """Now, later than all before: a file system's own clock stands still for some milliseconds."""
        Looking.moment += 1
        os.utime(path, (Looking.moment, Looking.moment))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*/*"))


def test_a_folder_is_looked_through_once_and_stays_within_its_size(tmp_path: Path) -> None:
    kept = Looking(tmp_path, most=350)
    paths = [kept.put(f"{number:02}") for number in range(20)]
    assert kept.looks == 1
    assert kept.names() == ["17", "18", "19"]
    kept.use(paths[17])
    kept.put("20")
    kept.put("20")  # the same again is no more than before
    assert kept.names() == ["17", "19", "20"], "what was used goes last"
    assert kept.looks == 1


def test_what_other_processes_keep_and_remove_counts(tmp_path: Path) -> None:
    here, there = Looking(tmp_path, most=350), Looking(tmp_path, most=350)
    for name in "abc":
        here.put(name)
    time.sleep(0.05)  # longer than a file system's clock stands still
    there.put("d", "another model")
    assert there.names() == ["b", "c", "d"]
    time.sleep(0.05)
    here.put("e")
    assert (here.looks, here.names()) == (2, ["c", "d", "e"])
    here.put("f")
    assert (here.looks, here.names()) == (2, ["d", "e", "f"])
    time.sleep(0.05)
    for path in tmp_path.glob("*/[ef]"):
        path.unlink()
    here.put("g")
    assert (here.looks, here.names()) == (3, ["d", "g"])
