"""`kvorum solve`, `ask`, `fields` and `decide` with ``--backend vllm``, on a real model: what ``--exact`` says without.

smollm2-135m in float32, each command in processes of its own, `solve` on two stages. Tokens are the same, probabilities
to 1e-3. Skipped where the model is not in the cache. Not covered: teams of hundreds of ticks (``test_vllm_real``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from spread_engines import MARKS

import cli_calls
from kvorum.models.cache_folder import entry_folder
from kvorum.models.catalogue import lookup

MODEL = "smollm2-135m"
pytestmark = [
    *MARKS,
    pytest.mark.skipif(
        not entry_folder(lookup(MODEL)).gguf.is_file(), reason=f"{MODEL} is not in the cache: kvorum pull {MODEL}"
    ),
]
TEXT = (
    "The mill at Arden was built in 1804 by Thomas Reed. It burned down in 1911. Ada Finch built it anew in 1913, and "
    "since then it is open to visitors on Sundays.\n"
)
FORM = {
    "type": "object",
    "properties": {
        "built": {"type": "integer"},
        "builder": {"type": "string", "maxLength": 40},
        "open": {"type": "boolean"},
    },
    "required": ["built", "builder", "open"],
}
QUESTIONS = [
    {"type": "predicate", "instructions": "Is the mill open to visitors?"},
    {"type": "choice", "instructions": "What is the text about?", "choices": ["a mill", "a ship", "a school"]},
    {"type": "score", "instructions": "How old is the mill?", "levels": ["new", "old", "very old"]},
]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command finds what another has kept, and each reads the same files."""
    monkeypatch.setenv("KVORUM_KEPT", "0")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mill.txt").write_text(TEXT)
    (tmp_path / "form.json").write_text(json.dumps(FORM))
    (tmp_path / "questions.json").write_text(json.dumps(QUESTIONS))


def kvorum(*words: str) -> str:
    """What the command prints on standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "kvorum.cli", *words, "-m", MODEL, "--exact", "--kv-tokens", "8192"],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.returncode in (0, 1), done.stderr  # 1: no answer within the budget
    return done.stdout


def on_both(*words: str, spread: tuple[str, ...] = ()) -> list[str]:
    """The command on vLLM and on the local backend. ``TRACE`` among its words is a file of its own."""
    told = []
    for backend, more in (("vllm", spread), ("local", ())):
        named = [f"{backend}.jsonl" if word == "TRACE" else word for word in words]
        told.append(kvorum(*named, *more, "--backend", backend))
    return told


def written() -> list[Any]:
    """Who wrote which token, tick by tick: the same on both, and something."""
    there, here = (
        [[(row["worker"], row["token"]) for row in rows] for rows in cli_calls.ticks(Path(f"{backend}.jsonl"))]
        for backend in ("vllm", "local")
    )
    assert there == here
    return there


def alike(there: Any, here: Any, ignored: tuple[str, ...] = ("ledger", "seconds")) -> None:
    """The same JSON, numbers with a fraction to 1e-3."""
    if isinstance(here, dict):
        assert there.keys() == here.keys()
        for key in here.keys() - set(ignored):
            alike(there[key], here[key])
    elif isinstance(here, list):
        assert len(there) == len(here)
        for pair in zip(there, here, strict=True):
            alike(*pair)
    elif isinstance(here, float):
        assert there == pytest.approx(here, abs=1e-3)
    else:
        assert there == here


def test_solve() -> None:
    drawn = ["-b", "ticks=60", "--temperature", "0.7", "--seed", "4", "-t", "TRACE", "--quiet"]
    team = ["-p", "hogwild", "-w", "2", *drawn]
    there, here = on_both("solve", "Name two rivers and a lake.", *team, spread=("--pipeline-parallel", "2"))
    assert there == here
    assert max(len(rows) for rows in written()) == 2


def test_ask() -> None:
    asked = ["-q", "Who built the mill anew?", "-q", "When did it burn down?", "-n", "24", "-t", "TRACE", "--quiet"]
    there, here = (re.sub(r"[\d.]+ s\b", "some s", told) for told in on_both("ask", "mill.txt", *asked))
    assert there == here
    assert there.strip()
    assert max(len(rows) for rows in written()) == 2


def test_fields() -> None:
    filled = [json.loads(told) for told in on_both("fields", "mill.txt", "-s", "form.json", "--json", "--confidence")]
    alike(*filled)
    assert list(filled[0]["value"]) == list(FORM["properties"])


def test_decide() -> None:
    found = [json.loads(told) for told in on_both("decide", "mill.txt", "-Q", "questions.json", "--json")]
    alike(*found)
    assert [decision["type"] for decision in found[0]["decisions"]] == ["yes_no", "choice", "score"]
