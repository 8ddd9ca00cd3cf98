"""Counts the instructions of the kernels' inner loops in a disassembly: what a processor that is not here has to do.

    python tools/count_instructions.py OBJECT...      # object files of native/cpp, of x86-64 or aarch64

A loop is what a branch backwards spans, without loops inside. Those that multiply are listed, with all their
instructions, loads and moves included, and those that multiply among them. Not covered: how many of them a processor
carries out at a time.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MULTIPLY = re.compile(r"sdot|smmla|smlal2?|smull2?|fmla|vpmaddubsw|vpdpbusd|vfmadd\d+ps")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)(.*)$")
BRANCH = re.compile(r"^(?:b\.\w+|b|cbn?z|tbn?z|j\w+)$")
TARGET = re.compile(r"\b([0-9a-f]+) <")


def main(paths: list[str]) -> None:
    """Print the loops of each object file."""
    for path in paths:
        for name, count, multiplying in loops(_disassembly(Path(path))):
            print(f"{Path(path).name}  {name}: {count} instructions, {multiplying} of them multiply")


def loops(text: str) -> Iterator[tuple[str, int, int]]:
    """Each innermost loop that multiplies: its function, its instructions, those that multiply."""
    for name, code in _functions(text):
        at = {address: index for index, (address, _, _) in enumerate(code)}
        spans = []
        for index, (_, mnemonic, rest) in enumerate(code):
            target = TARGET.search(rest)
            if BRANCH.match(mnemonic) and target and (begin := at.get(int(target[1], 16), index + 1)) <= index:
                spans.append((begin, index))
        for begin, end in spans:
            if any((a, b) != (begin, end) and begin <= a and b <= end for a, b in spans):
                continue
            words = [mnemonic for _, mnemonic, _ in code[begin : end + 1]]
            multiplying = sum(bool(MULTIPLY.fullmatch(word)) for word in words)
            if multiplying:
                yield name, len(words), multiplying


def _functions(text: str) -> Iterator[tuple[str, list[tuple[int, str, str]]]]:
    name, code = "", list[tuple[int, str, str]]()
    for line in text.splitlines():
        if begins := FUNCTION.match(line):
            if code:
                yield name, code
            name, code = begins[1].replace("kvorum::(anonymous namespace)::", "").split("(")[0], []
        elif found := LINE.match(line):
            code.append((int(found[1], 16), found[2], found[3]))
    if code:
        yield name, code


def _disassembly(path: Path) -> str:
    machine = path.read_bytes()[18:20]
    tool = "aarch64-linux-gnu-objdump" if machine == b"\xb7\x00" else "objdump"
    command = [tool, "-d", "-C", "--no-show-raw-insn", str(path)]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:])
