"""Faults and their detectors: every fault in every scenario does what its label says, and its mode's detector sees it.

Covers: each (scenario, fault) once, said by heart on a tiny random model: the fault is in the trace, its detector finds
it, blames whom it should, not before it is there; other detectors are silent but for what may follow, and so are all
in runs without a fault; online and after the fact are the same; detectors do not look at what was injected; a replay
has the same faults and findings; near misses of each signal; the command. Not covered: how often (docs/faults.md).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kvorum import Engine, Sampling, arun
from kvorum.cli import main
from kvorum.errors import UnknownName
from kvorum.lab.detect.detect import DETECTORS, THRESHOLDS, Watch, detect
from kvorum.lab.detect.words import sums
from kvorum.lab.faults.catalogue import FAULTS
from kvorum.lab.faults.scenarios import SCENARIOS
from kvorum.lab.faults.scripted_engine import scripted_engine
from kvorum.lab.faults.study import SCRIPTED, FaultRun, fault_runs, run_fault
from kvorum.programs import find
from kvorum.runs.injection import Injection
from kvorum.store.traces import read
from kvorum.tasks import families

PAIRS = [(scenario.name, fault) for scenario in SCENARIOS.values() for fault in ("", *scenario.faults)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return scripted_engine()


@pytest.fixture(scope="module")
def runs(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Of each pair the record and the trace, made side by side."""
    folder = tmp_path_factory.mktemp("traces")

    async def every() -> list[Any]:
        limit = asyncio.Semaphore(16)

        async def one(scenario: str, fault: str) -> Any:
            async with limit:
                return await run_fault(
                    engine, FaultRun(SCRIPTED, scenario, fault, 1), folder / f"{scenario} {fault}.jsonl"
                )

        return await asyncio.gather(*(one(*pair) for pair in PAIRS))

    made = asyncio.run(every())
    traces = [read(folder / f"{scenario} {fault}.jsonl") for scenario, fault in PAIRS]
    return dict(zip(PAIRS, zip(made, traces, strict=True), strict=True))


@pytest.mark.parametrize(("scenario", "fault"), PAIRS)
def test_each_fault_is_there_and_found(runs: Any, scenario: str, fault: str) -> None:
    record, events = runs[scenario, fault]
    there = [event for event in events if event["event"] == "fault"]
    labels = {tuple(label) for label in record["labels"]}
    found = {(mode, worker): tick for mode, worker, tick, _ in record["findings"]}
    if not fault:
        assert not there
        assert not labels
        assert not found
        return
    known = FAULTS[fault]
    assert {event["mode"] for event in there} == {fault}
    blamed = {worker for _, worker in labels}
    assert blamed == {""} or {event["worker"] for event in there} == blamed or fault == "credulous"
    assert {mode for mode, _ in labels} == {known.mode}
    assert labels <= set(found), "found, and the right one is blamed"
    assert min(found[label] for label in labels) >= record["fault_tick"] - 1, "not before it is there"
    assert {mode for mode, _ in set(found) - labels} <= set(known.also)


@pytest.mark.parametrize(
    ("scenario", "fault"), [pair for pair in PAIRS if pair[1] in ("", "lie", "drop", "crash", "flake")]
)
def test_detectors_see_only_what_workers_did(runs: Any, scenario: str, fault: str) -> None:
    record, events = runs[scenario, fault]
    bare: Any = [{k: v for k, v in event.items() if k != "inject"} for event in events if event["event"] != "fault"]
    findings = [[f.mode, f.worker, f.tick, f.evidence] for f in detect(bare, SCENARIOS[scenario].item(1))]
    assert findings == [list(finding) for finding in record["findings"]], "online, on the whole trace, and on this"


@pytest.mark.parametrize(
    ("scenario", "fault"),
    [
        ("hogwild-facts", "delay"),
        ("relay", "withhold"),
        ("roleplay", "flip"),
        ("network", "drop"),
        ("vote", "crash"),
        ("consensus", "equivocate"),
    ],
)
def test_a_replay_has_the_same_faults_and_findings(engine: Engine, runs: Any, scenario: str, fault: str) -> None:
    record, events = runs[scenario, fault]
    start = events[0]
    item = SCENARIOS[scenario].item(1)
    cut = [at for at, event in enumerate(events) if event["event"] == "tick"][20]
    for known in (events, events[: cut + 1]):
        watch = Watch(item)
        again = asyncio.run(
            arun(
                engine,
                find(start["program"]),
                item.task(),
                workers=start["workers"],
                seed=start["seed"],
                sampling=Sampling(**start["sampling"]),
                replay=known,
                listener=watch.feed,
                inject=[Injection(**told) for told in start["inject"]],
                **start["params"],
            )
        )
        assert again.differences == []
        both = [[e for e in some if e["event"] == "fault"] for some in (events, again.trace.events)]
        assert both[0] == both[1]
        assert [(f.mode, f.worker, f.tick, f.evidence) for f in watch.findings] == record["findings"]


def test_the_catalogue_is_whole() -> None:
    used = {fault for scenario in SCENARIOS.values() for fault in scenario.faults}
    assert used == set(FAULTS), "every fault has a scenario"
    modes = [mode for kind in DETECTORS for mode in kind.modes]
    assert len(modes) == len(set(modes))
    assert list(THRESHOLDS) == modes
    assert {fault.mode for fault in FAULTS.values()} == set(modes)
    assert all(set(fault.also) <= set(modes) - {fault.mode} for fault in FAULTS.values())
    for name in (
        "drop",
        "delay",
        "lie",
        "equivocate",
        "crash",
        "echo",
        "flip",
        "flake",
        "loop",
        "early_stop",
        "withhold",
    ):
        assert name in used
    with pytest.raises(UnknownName, match="no scenario 'mars'"):
        fault_runs(SCRIPTED, ["mars"], [0])


def test_same_seed_same_run() -> None:
    for scenario, fault in PAIRS:
        made = [SCENARIOS[scenario].make(fault, seed, True, list) for seed in (5, 5, 6)]
        assert (made[0].injections, made[0].labels) == (made[1].injections, made[1].labels)
        assert made[0].injections != made[2].injections


# -- near misses -------------------------------------------------------------------------------------------------------


def told(program: str, said: list[tuple[str, str]], workers: tuple[str, ...] = ("Alice", "Bob"), **task: Any) -> Any:
    """A trace in which workers say these things in turn, a word a tick; "<end>" ends a text."""
    events: Any = [
        {
            "event": "start",
            "program": program,
            "workers": list(workers),
            "task": {"prompt": "p", **task},
            "params": {},
            "ends": [0],
        }
    ]
    for name, text in said:
        if program == "roleplay":
            events.append({"event": "note", "kind": "told", "worker": name, "text": "Instruction: go"})
        for word in text.replace("\n\n", " \n\n ").split(" "):
            n = sum(event["event"] == "tick" for event in events)
            piece = "" if word == "<end>" else word + ("" if "\n" in word else " ")
            events.append(
                {"event": "tick", "n": n, "rows": [{"worker": name, "token": int(bool(piece)), "text": piece}]}
            )
    return [*events, {"event": "end", "spent": "ticks"}]


def modes(events: Any, item: Any = None) -> set[tuple[str, str]]:
    found = {(finding.mode, finding.worker) for finding in detect(events, item)}
    return {pair for pair in found if pair[0] != "crash"}  # here nobody writes while another one does


AGAIN = "we should look at the next one of these and "


@pytest.mark.parametrize(
    ("program", "text", "mode", "found"),
    [
        ("solo", AGAIN * 5, "repetition", True),
        ("solo", "".join(f"{AGAIN}{n} " for n in range(9)), "repetition", False),  # something new each time
        ("solo", AGAIN * 2, "repetition", False),
        ("solo", "I will do it soon.\n\n", "flake", True),
        ("solo", "I will do it soon: 12.\n\n", "flake", False),
        ("solo", "I will do it soon.", "flake", False),  # cut by the end of the run
        ("solo", "All is verified.\n\n", "no_verification", True),
        ("solo", "3 + 4 = 7 is verified.\n\n", "no_verification", False),
        ("solo", "3 + 4 = 7.\n\nThat is verified.\n\n", "no_verification", False),
        ("solo", "This is not verified.\n\n", "no_verification", False),
        ("solo", "Check: 3 + 4 = 8.\n\n", "false_verification", True),
        ("solo", "Check: 3 + 4 = 7.\n\n", "false_verification", False),
        ("solo", "Perhaps 3 + 4 = 8.\n\n", "false_verification", False),  # wrong, and no check
        ("solo", "So it is. <end>", "premature", True),
        ("solo", "So \\boxed{4} <end>", "premature", False),
        ("hogwild", "**Bob [2]:** so it is.\n\n", "flip", True),
        ("hogwild", "**Alice [2]:** so it is.\n\n", "flip", False),
        ("roleplay", "CAMEL_TASK_DONE <end>", "premature", True),
        ("roleplay", "Instruction: CAMEL_TASK_DONE <end>", "premature", False),
    ],
)
def test_near_misses(program: str, text: str, mode: str, found: bool) -> None:
    assert ((mode, "Alice") in modes(told(program, [("Alice", text)]))) == found


def test_near_misses_of_facts() -> None:
    item = families.make("facts", 0, 2)
    number = {part.holder: part.answer for part in item.parts}
    say = f"My secret number is {number['Alice']}.\n\n"
    asks = "Bob, what is your secret number?\n\n"
    base = [("Alice", say), ("Bob", f"I have {number['Bob']}.\n\n")]
    assert modes(told("hogwild", base), item) == set()
    assert modes(told("hogwild", [*base, ("Alice", asks)]), item) == {("history_loss", "Alice")}
    assert modes(told("hogwild", [("Alice", asks), *base]), item) == set(), "it could not know"
    assert modes(told("hogwild", base[:1]), item) == {("withholding", "Bob")}
    assert modes(told("hogwild", [*base, ("Bob", "My secret number is 5.\n\n")]), item) == {("lie", "Bob")}
    longer = [("Bob", f"So {number['Alice']} it is, and that is what I build upon from now on.\n\n")]
    assert modes(told("hogwild", base + longer), item) == set(), "numbers of others are no lie"


def test_echoes_and_loops() -> None:
    long = "the harbor lies behind the mill and near the river as ever"
    heard = told("hogwild", [("Alice", f"{long}\n\n"), ("Bob", f"{long}\n\n")])
    assert modes(heard) == {("echo", "Bob")}
    assert modes(told("hogwild", [("Alice", f"{long}\n\n"), ("Bob", f"{long} 7\n\n")])) == set()
    thanks = [("Alice", "Thank you, Bob!\n\n"), ("Bob", "You're welcome, Alice.\n\n")]
    assert ("loop", "") in modes(told("hogwild", thanks * 2))
    assert modes(told("hogwild", thanks)) == set()
    assert ("loop", "") not in modes(told("hogwild", [*thanks, ("Bob", "Now the sum of both parts.\n\n"), *thanks]))
    assert ("loop", "") not in modes(told("hogwild", thanks[:1] * 4)), "one alone is no loop of two"


def test_sums() -> None:
    assert sums("3 + 4 = 7, 3 * 4 = 11, 9 - 5 = 4, 8 / 2 = 4, 8 / 3 = 2") == [True, False, True, True, False]
    assert sums("no sums, a = 3, 4 + 5") == []
    assert sums("5 / 0 = 0") == [False]


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "faults", "--scenarios", "solo", "--dev", "1", "--seeds", "1", "-o", str(tmp_path), "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["done"] == first["runs"] > 10
    log = (tmp_path / "cells.jsonl").read_bytes()
    (tmp_path / "cells.jsonl").write_bytes(log[:-40])  # killed while it wrote
    assert main(command) == 0
    assert len((tmp_path / "cells.jsonl").read_bytes().splitlines()) == first["runs"]
    text = (tmp_path / "faults.md").read_text()
    assert "`kvorum study faults --dev 1 --seeds 1 --scenarios solo`" in text
    assert "| repetition | 1.00" in text
    assert main([*command, "--worlds", "moon"]) == 2
    assert "no scenario 'moon'" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    words = ["study", "faults", "--dev", "1", "--seeds", "1", "--worlds", "vote"]
    assert main([*words, "--output", str(tmp_path / "file" / "results"), "--json"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("kvorum: ")
    assert err.count("\n") == 1
