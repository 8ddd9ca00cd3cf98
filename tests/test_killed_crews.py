"""A crew that calls tools, in a process of its own, killed with SIGKILL at random moments and gone on with.

Covers the tools of a memory, tools that may be called again and tools that may not, each of which takes some time and
leaves a mark in a file: no entry lost or there twice, no call made twice that may not be, a call whose result was not
recorded told as "interrupted", and the same tokens up to there. The workers' calls are put into their mouths; their
messages are a tiny random model's own, held by a grammar. A few moments here, fifty among the slow tests, half of them
within calls; some of the resumed runs are killed as well.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from kvorum import Budget, Result, Sampling, programs
from kvorum.harness.tools.tool import tool
from kvorum.runs.injection import Injection
from kvorum.store.events import Event
from kvorum.store.memory.entries import Entry
from kvorum.store.memory.store import MemoryStore
from kvorum.store.traces import read

CREW = """
channel: cache
memory: model
workers:
  Ann: {role: You look and mark., tools: [look, mark]}
  Ben: {role: You look and mark., tools: [look, mark]}
  Cem: {role: You keep what was found., tools: [recall, remember, update, forget]}
steps:
  look: {who: [Ann, Ben], ask: Look., says: {text: text up to 12, good: yes or no}, then: keep}
  keep: {who: Cem, ask: Keep it., says: {kept: text up to 12}}
answer: keep.kept
"""
KNOWN, WRONG = "ab12ab12ab12", "cd34cd34cd34"
SLOW = 0.03
"""Seconds that a call takes between its two marks."""


def call(name: str, /, **given: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(given)}}}\n</tool_call>'


LINES = {
    "Ann": [call("look", shelf="left") + "\n" + call("mark", shelf="left"), call("mark", shelf="top")],
    "Ben": [call("mark", shelf="right"), call("look", shelf="right")],
    "Cem": [
        call("remember", text="The left shelf is good.")
        + "\n"
        + call("update", id=KNOWN, text="Two shelves are good."),
        call("forget", id=WRONG) + "\n" + call("remember", text="The top shelf is bad."),
    ],
}
MEMORY = {"The left shelf is good.", "Two shelves are good.", "The top shelf is bad."}


def play(folder: Path, slow: float = SLOW, **options: Any) -> Result:
    """The crew at work in ``folder``, where its memory, its marks and its trace are."""
    os.environ |= {"KVORUM_MEMORY": str(folder / "memory.sqlite"), "KVORUM_HOME": str(folder / "home")}

    def write(words: str) -> None:
        with (folder / "marks").open("a", encoding="utf-8") as file:
            file.write(f"{words}\n")

    def look(shelf: str) -> str:
        """looks"""
        time.sleep(slow)
        write(f"look {shelf}")
        return f"apples on {shelf}"

    def mark(shelf: str) -> str:
        """marks"""
        write(f"mark {shelf}")
        time.sleep(slow)
        return "marked"

    said = [
        Injection("say", name, turn=turn, text=text, end=True)
        for name, texts in LINES.items()
        for turn, text in enumerate(texts)
    ] + [Injection("say", name, turn=2, text='{"') for name in LINES]
    engine = toy_engine.engine(torch.float32, kv_tokens=20_000)
    given: dict[str, Any] = {
        "budget": Budget(ticks=6000), "sampling": Sampling(temperature=1.0), "inject": said, "retries": 0,
        "tokens": 400, "memory": "shelves", "tools": [tool(look, repeatable=True), mark], **options,
    }  # fmt: skip
    return engine.run(programs.crew, "Look.", crew=CREW, **given)


def begin(folder: Path) -> None:
    """A memory with something to replace and something to forget."""
    folder.mkdir()
    old = [Entry(KNOWN, "No shelf is good.", "model:x", 1.0, "shelves"), Entry(WRONG, "No.", "model:x", 2.0, "shelves")]
    MemoryStore(folder / "memory.sqlite").add(old)


def work(folder: str, again: bool) -> None:
    """What the process does that is killed."""
    torch.set_num_threads(1)
    trace = Path(folder) / "run.jsonl"
    play(Path(folder), trace=trace, replay=read(trace) if again else None)


def killed(processes: ForkServerContext, folder: Path, chance: random.Random, *, again: bool = False) -> bool:
    """Let a process work until a moment that is drawn: behind so many lines of its trace, or within so many calls.

    Returns whether it was killed: it may have ended by itself before.
    """
    asked = chance.random() < 0.5
    wanted = chance.randrange(1, 5) if asked else chance.randrange(2, 200)
    process = processes.Process(target=work, args=(str(folder), again))
    process.start()
    trace, seen = folder / "run.jsonl", b'"kind":"asking"' if asked else b"\n"
    before = trace.read_bytes() if again else b""
    while process.is_alive() and (
        not trace.exists() or (found := trace.read_bytes()) == before or found.count(seen) < wanted
    ):
        time.sleep(0.001)
    time.sleep(chance.random() * (SLOW if asked else 0.01))
    process.kill()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0)
    return process.exitcode == -signal.SIGKILL


def tokens(events: list[Event]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for event in events:
        for row in event["rows"] if event["event"] == "tick" else ():
            found.setdefault(row["worker"], []).append(row["token"])
    return found


def calls_of(events: list[Event]) -> tuple[dict[int, str], dict[int, Any]]:
    """Of calls that may not be repeated what was asked, and of all what came of it, by number."""
    notes: list[Any] = [event for event in events if event["event"] == "note" and event["kind"] == "asking"]
    outside = {event["n"]: event["value"] for event in events if event["event"] == "outside"}
    return {note["n"]: note["name"] for note in notes}, outside


def check(processes: ForkServerContext, folder: Path, seed: int) -> tuple[bool, int]:
    """Kill it, go on, and look at everything that it leaves. Returns whether it was killed before it had ended, and how
    many calls were interrupted."""
    begin(folder)
    chance = random.Random(seed)
    hit = killed(processes, folder, chance)
    lefts = [read(folder / "run.jsonl")]
    if chance.random() < 0.3:
        killed(processes, folder, chance, again=True)
        lefts.append(read(folder / "run.jsonl"))
    result = play(folder, slow=0, trace=folder / "run.jsonl", replay=lefts[-1])
    assert result.differences == []
    events = result.trace.events
    whole = tokens(events)
    for left in lefts:  # the same tokens up to where it broke off
        for name, ids in tokens(left).items():
            assert whole[name][: len(ids)] == ids
    begun, came = calls_of(lefts[-1])
    _, told = calls_of(events)
    broken = {n for n in begun if n not in came}
    assert {n: told[n]["status"] for n in broken} == dict.fromkeys(broken, "interrupted")
    assert all(told[n] == value for n, value in came.items())
    notes: list[Any] = [event for event in events if event["event"] == "note" and event["kind"] == "tool"]
    marks = Counter((folder / "marks").read_text().split("\n")[:-1])
    for note in notes:
        if note["tool"] in ("look", "mark"):
            what = f"{note['tool']} {json.loads(note['arguments'])['shelf']}"
            assert marks[what] >= (note["status"] == "ok"), what
            assert note["tool"] == "look" or marks[what] <= 1, what
    assert sum(note["tool"] == "mark" for note in notes) == 3
    store = MemoryStore(folder / "memory.sqlite")
    assert Counter(entry.text for entry in store.list(namespace="shelves")) == Counter(MEMORY | _left(store, notes))
    assert [entry.text for entry in store.history(KNOWN)] == ["No shelf is good.", "Two shelves are good."]
    if seed % 5 == 0:
        again = play(folder, slow=0, replay=events)
        assert (again.differences, again.answer, tokens(again.trace.events)) == ([], result.answer, whole)
        assert Counter((folder / "marks").read_text().split("\n")[:-1]) == marks
    return hit, sum(note["status"] == "interrupted" for note in notes)


def _left(store: MemoryStore, notes: list[dict[str, Any]]) -> set[str]:
    """What an interrupted call may not have deleted: it is not repeated."""
    stopped = any(note["tool"] == "forget" and note["status"] == "interrupted" for note in notes)
    return {"No."} if stopped and any(e.id == WRONG for e in store.list(namespace="shelves")) else set()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> ForkServerContext:
    """Processes that come from one in which the libraries are there already."""
    monkeypatch.setenv("KVORUM_MEMORY", "")  # which `play` sets
    monkeypatch.setenv("KVORUM_HOME", "")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kvorum.api", "transformers.models.llama.modeling_llama"])
    return context


@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_crew_goes_on(seed: int, processes: ForkServerContext, tmp_path: Path) -> None:
    hit, _ = check(processes, tmp_path / "crew", seed)
    assert hit, "the process had ended before it was killed"


@pytest.mark.slow
def test_a_crew_killed_at_fifty_moments(processes: ForkServerContext, tmp_path: Path) -> None:
    """Fifty that were hit by the signal; one that had ended before is no moment."""
    hits = interrupted = seed = 0
    while hits < 50:
        seed += 1
        assert seed < 80, f"of {seed} processes {hits} were hit"
        hit, broken = check(processes, tmp_path / str(seed), seed + 2)
        hits, interrupted = hits + hit, interrupted + broken
    assert interrupted >= 5  # calls were hit, not only what lies between them
