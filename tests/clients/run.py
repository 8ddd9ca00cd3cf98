"""Real clients, unchanged, against `kvorum serve` with a real model: each has an environment and a job of its own.

    python tests/clients/run.py [NAME ...] [--model qwen2.5-coder-1.5b]

Environments are kept in ``build/clients/NAME`` and made once. A job is ``NAME_client.py`` (``.mjs`` for Node, ``.sh``
for a shell), called with the address and the model's name; it ends with 0 or says what went wrong. A small model
may end its loop of calls without a word, so jobs look at the calls and not at what is said last. At the end stands a
table of versions, results and seconds. Exit code 1 where one failed; where a program is not on this machine, its job
is skipped and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / "build" / "clients"

CLIENTS = {
    "curl": [],
    "openai": ["openai>=2.0"],
    "anthropic": ["anthropic>=2.0"],
    "mcp": ["mcp>=2.3"],
    "ai": ["ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai", "zod"],
    "openai_agents": ["openai-agents>=0.10"],
    "pydantic_ai": ["pydantic-ai-slim[openai]>=1.0"],
    "langchain": ["langchain-openai>=1.0", "langchain>=1.0", "langgraph>=1.0"],
    "instructor": ["instructor>=1.12"],
    "dspy": ["dspy>=3.0"],
    "smolagents": ["smolagents[openai]>=1.26"],
    "crewai": ["crewai>=1.15"],
    "inspect_ai": ["inspect-ai>=0.3.150", "openai>=2.0"],
    "lm_eval": ["lm-eval[api]>=0.4.9"],
}
"""What each needs; the first is the client itself."""
SECONDS = 900
"""For one job; a small model on two cores takes minutes for some."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client lives: the words that run a job there, the folder of its programs, and its version."""

    words: tuple[str, ...]
    programs: Path | None
    version: str


class Absent(Exception):
    """A program that a client needs is not on this machine."""


def main() -> int:
    """Run the jobs that are named, or all."""
    sys.path.insert(0, str(HERE.parent))
    from serving import Process

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLIENTS))
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in CLIENTS]
    if unknown:
        parser.error(f"there is no client {unknown[0]}; there are: {', '.join(CLIENTS)}")
    rows: list[tuple[str, str, str, float]] = []
    places: dict[str, Place] = {}
    for name in args.names or CLIENTS:
        try:
            places[name] = place(name)
        except Absent as error:
            rows.append((name, "", f"skipped: {error}", 0.0))
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    server = Process(args.model, Path(tempfile.mkdtemp()), "--kv-tokens", "16384")
    try:
        for name, where in places.items():
            began = time.monotonic()
            failed, said = run(name, where, f"{server.up.url}/v1", server.up.model)
            seconds = time.monotonic() - began
            rows.append((name, where.version, "failed" if failed else "passed", seconds))
            print(f"{name} {where.version}: {rows[-1][2]} in {seconds:.0f} s\n  {said.strip()}", flush=True)
    finally:
        server.end()
    print("\n| client | version | | seconds |\n|---|---|---|---|")
    for name, version, result, seconds in rows:
        print(f"| {name} | {version} | {result} | {seconds:.0f} |")
    return 1 if any(result == "failed" for _, _, result, _ in rows) else 0


def run(name: str, where: Place, url: str, model: str) -> tuple[bool, str]:
    """Whether a job failed, and what it said. It runs in an empty folder, as somebody without settings or a home."""
    with tempfile.TemporaryDirectory() as folder:
        outside = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        outside |= {"HOME": folder, "NODE_PATH": str(ENVIRONMENTS / name / "node_modules")}
        if where.programs is not None:
            outside["PATH"] = f"{where.programs}{os.pathsep}{outside['PATH']}"
        words = [*where.words, str(job(name)), url, model]
        try:
            done = subprocess.run(words, capture_output=True, text=True, env=outside, cwd=folder, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return True, f"did not end within {SECONDS} seconds"
    return done.returncode != 0, done.stdout if done.returncode == 0 else (done.stdout + done.stderr)[-3000:]


def job(name: str) -> Path:
    """The file of a client's job."""
    (found,) = HERE.glob(f"{name}_client.*")
    return found


def place(name: str) -> Place:
    """A client's environment, made where it is not there yet or needs something else by now."""
    kind = job(name).suffix
    if not CLIENTS[name]:
        version = subprocess.run([_program(name), "--version"], capture_output=True, text=True, check=True).stdout
        return Place((_program("bash"),), None, version.split()[1])
    folder = ENVIRONMENTS / name
    stamp, needs = folder / "needs.txt", "\n".join(CLIENTS[name])
    stale = not stamp.exists() or stamp.read_text(encoding="utf-8") != needs
    if stale:
        shutil.rmtree(folder, ignore_errors=True)
    if kind == ".mjs":
        node, npm = _program("node"), _program("npm")
        if stale:
            words = [npm, "install", "--prefix", str(folder), "--no-fund", "--no-audit", "--loglevel=error"]
            subprocess.run([*words, *CLIENTS[name]], check=True)
            stamp.write_text(needs, encoding="utf-8")
        about = (folder / "node_modules" / CLIENTS[name][0] / "package.json").read_text(encoding="utf-8")
        return Place((node,), None, json.loads(about)["version"])
    python = folder / "bin" / "python"
    if stale:
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *CLIENTS[name]], check=True)
        stamp.write_text(needs, encoding="utf-8")
    package = CLIENTS[name][0].partition(">")[0].partition("[")[0]
    asks = f"import importlib.metadata as m; print(m.version({package!r}))"
    version = subprocess.run([str(python), "-c", asks], capture_output=True, text=True, check=True).stdout.strip()
    return Place((str(python) if kind == ".py" else _program("bash"),), python.parent, version)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Absent(f"there is no {name} on this machine")
    return found


if __name__ == "__main__":
    sys.exit(main())
