"""Real clients, unchanged, against `kvorum serve` with a real model: each has an environment and a job of its own.

    python tests/clients/run.py [NAME ...] [--model qwen2.5-coder-1.5b]

Environments are kept in ``build/clients/NAME`` and made once. A job is ``NAME_client.py URL MODEL``; it ends with 0 or
says what went wrong. Exit code 1 where one failed. Beside these: lm-eval and inspect-ai in ``test_serve_clients.py``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from serving import Process  # noqa: E402

CLIENTS = {
    "openai": ["openai>=2.0"],
    "openai_agents": ["openai-agents>=0.10"],
    "pydantic_ai": ["pydantic-ai-slim[openai]>=1.0"],
    "langchain": ["langchain>=1.0", "langchain-openai>=1.0", "langgraph>=1.0"],
    "instructor": ["instructor>=1.12"],
    "dspy": ["dspy>=3.0"],
}
"""What each needs."""
SECONDS = 900
"""For one job; a small model on two cores takes minutes for some."""


def main() -> int:
    """Run the jobs that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLIENTS))
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in CLIENTS]
    if unknown:
        parser.error(f"there is no client {unknown[0]}; there are: {', '.join(CLIENTS)}")
    pythons = {name: environment(name) for name in args.names or CLIENTS}
    server = Process(args.model, Path(tempfile.mkdtemp()), "--kv-tokens", "16384")
    failed = []
    try:
        for name, python in pythons.items():
            began = time.monotonic()
            words = [str(python), str(HERE / f"{name}_client.py"), f"{server.up.url}/v1", server.up.model]
            outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            try:
                done = subprocess.run(words, capture_output=True, text=True, env=outside, timeout=SECONDS)
                code, said = done.returncode, done.stdout if done.returncode == 0 else done.stderr[-3000:]
            except subprocess.TimeoutExpired:
                code, said = 1, f"did not end within {SECONDS} seconds"
            failed += [name] if code else []
            print(
                f"{name}: {'failed' if code else 'passed'} in {time.monotonic() - began:.0f} s\n  {said.strip()}",
                flush=True,
            )
    finally:
        server.end()
    return 1 if failed else 0


def environment(name: str) -> Path:
    """The Python of a client's environment, made where it is not there yet or needs something else by now."""
    folder = HERE.parents[1] / "build" / "clients" / name
    python, stamp = folder / "bin" / "python", folder / "needs.txt"
    needs = "\n".join(CLIENTS[name])
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != needs:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *CLIENTS[name]], check=True)
        stamp.write_text(needs, encoding="utf-8")
    return python


if __name__ == "__main__":
    sys.exit(main())
