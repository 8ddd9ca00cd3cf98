"""The native kernels of processors that are not here, tested under emulation: `make test-arm`, `make test-scalar`.

    python tools/emulated_tests.py arm            # cross compiled, in an emulated ARM Python
    python tools/emulated_tests.py arm --broken   # that the tests notice a wrong lane and a wrong tail
    python tools/emulated_tests.py scalar         # the installed kernels on an x86-64 without AVX
    python tools/emulated_tests.py arm --only draws

What is run: products and quantised rows, attention, the lean decoder, draws, each on every path that the emulated
processor has, against the plain twins, and that a row has the same bits in any company. Not covered: speed, macOS.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import arm_python

PATHS = {  # of each processor of qemu's, the fastest first; torch's own code needs more than the last one has
    "max": ["neon-i8mm", "neon-dotprod", "neon", "scalar"],
    "cortex-a76": ["neon-dotprod", "neon", "scalar"],
    "cortex-a72": ["neon", "scalar"],
}
ATTENTION = "tests/test_native_attention.py"
TESTS = {
    "attention, float32": [ATTENTION, "-k", "twin_on_every_path"],
    "attention, float16 and the rest": [ATTENTION, "-k", "not twin_on_every_path"],
    "packed products": ["tests/test_quantize.py"],
    "lean decoder": ["tests/test_lean.py"],
    "draws": ["tests/test_draws.py"],
}
EXAMPLES = "30"  # random ticks to draw, on each path
ROWS = ["tests/test_lean.py", "-k", "bits and qwen3"]  # with the path that such a processor takes by itself
# What is asked of a processor is the kernels' own question, so torch, which does not start on all of them, stays out.
SHOW = """
import sys, types
sys.modules["torch"] = types.ModuleType("torch")
sys.modules["torch"].__file__ = "torch/__init__.py"
import kvorum_native
print(kvorum_native.paths())
"""
Python = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Fault:
    """A kernel broken on purpose: what is replaced in which file, and the tests that must notice."""

    name: str
    file: str
    before: str
    after: str
    tests: Sequence[str]


FAULTS = (
    Fault(
        "a product takes one lane of inputs for another",
        "neon_dotprod.cpp",
        "w, x[m], J);",
        "w, x[m], J == 3 ? 2 : J);",
        ["tests/test_quantize.py", "-k", "products_of_every_path"],
    ),
    Fault(
        "the last output row of a block that is not full stays unwritten",
        "neon_products.h",
        "for (int64_t r = 0; n + r < a.n; ++r)",
        "for (int64_t r = 0; n + r + 1 < a.n; ++r)",
        ["tests/test_quantize.py", "-k", "products_of_every_path"],
    ),
    Fault(
        "attention adds up one lane twice",
        "attention_neon.cpp",
        "vget_lane_f32(two, 0) + vget_lane_f32(two, 1)",
        "vget_lane_f32(two, 0) + vget_lane_f32(two, 0)",
        [ATTENTION, "-k", "twin_on_every_path and llama"],
    ),
    Fault(
        "a key in int8 is read with four of its bytes twice",
        "attention_neon.cpp",
        "{bytes(p), bytes(p + 4)}",
        "{bytes(p), bytes(p)}",
        [ATTENTION, "-k", "narrow_cache and int8 and llama"],
    ),
    Fault(
        "the last bytes of a key in int8 are left as they were",
        "attention_keys.h",
        "for (; i < count; ++i) out[i] = group.one(i);",
        "for (; i + 1 < count; ++i) out[i] = group.one(i);",
        [ATTENTION, "-k", "narrow_cache and int8 and gemma2"],
    ),
    Fault(
        "a draw leaves out the last logits of a row",
        "sampling_neon.cpp",
        "for (; i < end; i += 4)",
        "for (; i + 4 <= end; i += 4)",
        ["tests/test_draws.py", "-k", "drawn_as_its_rows or chances"],
    ),
)


def main() -> int:
    """Run what the command line asks for; the exit code is 0 where all is as it should be, or cannot be run here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("processor", choices=("arm", "scalar"))
    parser.add_argument("--broken", action="store_true", help="break kernels on purpose and see the tests fail")
    parser.add_argument("--only", default="", metavar="WORDS", help="the parts with these words in their names")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("KVORUM_EXAMPLES", EXAMPLES)
    if asked.processor == "scalar":
        return scalar(asked.only)
    return broken(asked.only) if asked.broken else arm(asked.only)


def arm(only: str = "") -> int:
    """The kernels of this tree under an emulated ARM, a process a part."""
    package = _ready("native")
    if package is None:
        return 0
    python = {cpu: _arm(cpu, package) for cpu in PATHS}
    wrong = [cpu for cpu, paths in PATHS.items() if _last(python[cpu](["-c", SHOW])) != str(paths)]
    print("\n".join(f"{cpu}: not the paths {PATHS[cpu]}" for cpu in wrong) or "The paths are those of the processors.")
    parts = [(name, python["max"], tests) for name, tests in TESTS.items()]
    parts += [("rows with dotprod", python["cortex-a76"], ROWS)]
    return _all(parts, only) or len(wrong)


def broken(only: str = "") -> int:
    """Each fault in a copy of the sources; the result is the number of faults that went unnoticed."""
    unnoticed = 0
    for number, fault in enumerate(FAULTS):
        if only not in fault.name:
            continue
        package = _ready(f"broken-{number}", fault)
        if package is None:
            return 0
        done = _pytest(_arm("max", package), ["-x", *fault.tests])
        failed = done.returncode == 1
        unnoticed += not failed
        print(f"{'noticed' if failed else 'NOT NOTICED'}: {fault.name}: {_last(done)}", flush=True)
    return unnoticed


def scalar(only: str = "") -> int:
    """The installed kernels on an x86-64 of 2008."""
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None:
        print("Not run: apt-get install qemu-user-static")
        return 0

    def old(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [qemu, "-cpu", "Nehalem", sys.executable, *arguments], cwd=arm_python.TREE, text=True, capture_output=True
        )

    found = _last(old(["-c", SHOW]))
    if found != "['scalar']":
        print(f"Not the scalar path: {found}")
        return 1
    return _all([(name, old, tests) for name, tests in TESTS.items()], only)


def _ready(name: str, fault: Fault | None = None) -> Path | None:
    """The folder of an unpacked ARM wheel, with `fault`; None, with a sentence, where none is to be had."""
    lacking = arm_python.lacking()
    if lacking is not None:
        print(f"Not run. {lacking}")
        return None
    arm_python.prepare()
    source = arm_python.TREE / "native"
    if fault is not None:
        source = shutil.copytree(source, arm_python.HERE / name / "source", dirs_exist_ok=True)
        file = source / "cpp" / fault.file
        text = file.read_text()
        if text.count(fault.before) != 1:
            raise SystemExit(f"{fault.file} has {text.count(fault.before)} of what is to be broken: {fault.before}")
        file.write_text(text.replace(fault.before, fault.after))
    package = arm_python.HERE / name / "package"
    shutil.rmtree(package, ignore_errors=True)
    shutil.unpack_archive(arm_python.wheel(source, arm_python.HERE / name / "dist"), package, "zip")
    return package


def _arm(cpu: str, package: Path) -> Python:
    return lambda arguments: arm_python.run(arguments, cpu=cpu, package=package)


def _pytest(python: Python, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return python(["-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "not slow", "--timeout=0", *tests])


def _all(parts: Sequence[tuple[str, Python, Sequence[str]]], only: str) -> int:
    """Run the parts with `only` in their names, one a core, and print how each ended. How many failed."""

    def one(part: tuple[str, Python, Sequence[str]]) -> bool:
        began = time.monotonic()
        done = _pytest(part[1], part[2])
        print(f"{part[0]}: {_last(done)} ({time.monotonic() - began:.0f} s with the start)", flush=True)
        if done.returncode:
            print(done.stdout[-5000:], done.stderr[-2000:])
        return done.returncode != 0

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(one, (part for part in parts if only in part[0])))


def _last(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
