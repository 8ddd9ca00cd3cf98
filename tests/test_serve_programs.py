"""Programs and their parameters over HTTP: shown as each program declares itself, and checked by that declaration.

Covers what is refused before a run begins (at any depth of programs inside programs), programs that the server was
started with, and a run that fails. Not covered: the declarations themselves (test_parameters.py), the page's form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest

import toy_engine
from kvorum import programs
from kvorum.errors import BadRequest
from kvorum.runs.annotations import Help
from kvorum.runs.program import program
from kvorum.runs.run import Run
from serving import Process, Served, served
from tiny_folder import tiny_folder


@program("count", "writes nothing and answers with a number")
async def count(
    run: Run,
    *,
    to: Annotated[int, Help("What it counts to.", low=1, high=9)] = 3,
    path: Annotated[str, Help("A file.", local=True)] = "",
) -> str | None:
    if to == 7:
        raise BadRequest("Seven is unlucky.")
    return str(to)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(toy_engine.fake(name="toy"), tmp_path_factory.mktemp("store"), programs=[count], ticks=40) as up:
        yield up


def test_programs_are_shown_as_they_declare_themselves(server: Served) -> None:
    reply = server.http.get("/v1/programs").json()
    known = {**programs.REGISTRY, "count": count}
    assert reply["default"] == programs.DEFAULT
    assert [shown["name"] for shown in reply["data"]] == list(known)
    for shown in reply["data"]:
        offered = [parameter for parameter in known[shown["name"]].parameters if not parameter.local]
        assert [parameter["name"] for parameter in shown["params"]] == [parameter.name for parameter in offered]
        for parameter, told in zip(offered, shown["params"], strict=True):
            assert (told["kind"], told["help"]) == (parameter.kind, parameter.help)
            assert tuple(told["choices"] or ()) == parameter.choices
            assert (told["low"], told["high"]) == (parameter.low, parameter.high)
            if parameter.choices:
                assert told["default"] in (*parameter.choices, None)
    assert not {"export", "tools", "script"} & {param["name"] for shown in reply["data"] for param in shown["params"]}


CHOSEN = [
    (program.name, parameter.name, parameter.choices)
    for program in programs.REGISTRY.values()
    for parameter in program.parameters
    if parameter.choices and not parameter.local
]


@pytest.mark.parametrize(("program", "name", "choices"), CHOSEN, ids=["-".join(found[:2]) for found in CHOSEN])
def test_another_word_is_refused_with_those_that_there_are(
    server: Served, program: str, name: str, choices: tuple[str, ...]
) -> None:
    workers = programs.find(program).default_workers
    body = {"problem": "Count.", "program": program, "workers": workers, "params": {name: "no such word"}}
    reply = server.post("/v1/runs", body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, f"params.{name}")
    assert all(word in error["message"] for word in choices)


@pytest.mark.parametrize(
    ("program", "params", "words"),
    [("consensus", {"byzantine": 9}, "9 Byzantine"), ("tree", {"branching": []}, "tree-grpo has no branching")],
)
def test_what_cannot_be_together_is_refused(server: Served, program: str, params: dict[str, Any], words: str) -> None:
    for path, body in (
        ("/v1/runs", {"problem": "Count.", "program": program, "workers": 4, "params": params}),
        (
            "/v1/chat/completions",
            {
                "model": f"{server.service.name}:{program}-4",
                "messages": [{"role": "user", "content": "Count."}],
                "kvorum": {"params": params},
            },
        ),
    ):
        reply = server.post(path, body)
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, "params")
        assert words in error["message"]


def nested(params: dict[str, Any], depth: int) -> dict[str, Any]:
    """``params`` of a tree that stands as the leaf of so many others."""
    for _ in range(depth):
        params = {"leaf": "tree", "leaf_params": params}
    return params


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("path", ["/v1/runs", "/v1/chat/completions", "/v1/completions"])
def test_no_file_is_written_at_any_depth(server: Served, tmp_path: Path, path: str, depth: int) -> None:
    """What touches files is refused before anything begins, by whichever route it comes."""
    target = tmp_path / "written"
    params = nested({"export": str(target)}, depth)
    bodies: dict[str, dict[str, object]] = {
        "/v1/runs": {"problem": "x", "program": "tree", "params": params},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
        "/v1/completions": {"prompt": "x"},
    }
    extra = {} if path == "/v1/runs" else {"model": "toy:tree-2", "kvorum": {"params": params, "budget": {"ticks": 20}}}
    before = len(server.http.get("/v1/runs").json()["data"])
    reply = server.post(path, {**bodies[path], **extra})
    assert reply.status_code == 400, reply.text
    assert "export" in reply.json()["error"]["message"]
    assert reply.json()["error"]["param"] == "params." + "leaf_params." * depth + "export"
    assert len(server.http.get("/v1/runs").json()["data"]) == before
    assert not target.exists()


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    "params",
    [
        {"leaf": "os.system"},
        {"leaf": "../count.py:count"},
        {"leaf": "hogwild", "leaf_params": {"workers": 17}},
        {"leaf": "hogwild", "leaf_params": {"workers": ["x"] * 65}},
        {"leaf": "hogwild", "leaf_params": {"check_every": 10**7}},
        {"leaf": "hogwild", "leaf_params": {"layout": "nonsense"}},
        {"leaf": "hogwild", "leaf_params": {"other": "x" * 30000}},
        {"leaf": "thread", "leaf_params": {"tools": ["eval"]}},
        {"leaf": "hogwild", "leaf_params": {"no_such": 1}},
    ],
    ids=str,
)
def test_limits_hold_at_any_depth(server: Served, params: dict[str, Any], depth: int) -> None:
    reply = server.post("/v1/runs", {"problem": "x", "program": "tree", "params": nested(params, depth)})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"].startswith("params.")


def test_programs_inside_one_another_have_a_limit(server: Served) -> None:
    reply = server.post("/v1/runs", {"problem": "x", "program": "tree", "params": nested({"leaf": ""}, 9)})
    assert (reply.status_code, "inside one another" in reply.text) == (400, True)


def test_a_program_that_the_server_was_started_with(server: Served) -> None:
    """It runs by its name, on all routes, and its parameters are checked as any other's; no path is ever loaded."""
    run = server.run(program="count", params={"to": 5}, workers=1)["id"]
    assert server.until(run, "finished")["answer"] == "5"
    chat = {"model": "toy:count-1", "messages": [{"role": "user", "content": "x"}], "kvorum": {"params": {"to": 9}}}
    assert server.post("/v1/chat/completions", chat).json()["choices"][0]["message"]["content"] == "9"
    assert "toy:count-1" in [model["id"] for model in server.http.get("/v1/models").json()["data"]]
    for params in ({"to": 10}, {"to": "5"}, {"path": "/etc/passwd"}):
        assert server.post("/v1/runs", {"problem": "x", "program": "count", "params": params}).status_code == 400
    here = f"{__file__}:count"
    assert server.post("/v1/runs", {"problem": "x", "program": here[-80:]}).status_code == 404
    assert server.post("/v1/runs", {"problem": "x", "program": "test_serve_programs:count"}).status_code == 404


def test_a_run_that_fails_fails_alone(server: Served) -> None:
    run = server.run(program="count", params={"to": 7}, workers=1)["id"]
    assert server.until(run, "failed")["error"] == {"message": "Seven is unlucky.", "type": "BadRequest"}
    assert server.free()


def test_a_run_waits_for_its_program(tmp_path: Path) -> None:
    """An unfinished run of a program that the server was not started with is held, and goes on when it is there."""
    own = replace(programs.find("solo"), name="own")
    with served(toy_engine.fake(name="toy"), tmp_path, programs=[own]) as up:
        run = up.run(program="own", workers=1, budget={"ticks": 5}, paused=True)["id"]
        up.until(run, "paused")
    with served(toy_engine.fake(name="toy"), tmp_path) as up:
        shown = up.show(run)
        assert (shown["status"], shown["error"]["type"]) == ("paused", "program_missing")
        assert up.post(f"/v1/runs/{run}/resume").status_code == 409
    with served(toy_engine.fake(name="toy"), tmp_path, programs=[own]) as up:
        assert up.post(f"/v1/runs/{run}/resume").status_code == 200
        assert up.until(run, "finished")["ticks"] >= 5


def test_the_command_serves_programs_of_files(tmp_path: Path) -> None:
    """`kvorum serve -p file.py:name --quantize none`: the program is there by its name, and by no path."""
    model, own = tmp_path / "tiny", tmp_path / "own.py"
    model.mkdir()
    tiny_folder(model)
    own.write_text(
        "from kvorum import program\n\n\n@program('mine', 'answers at once')\nasync def mine(run):\n    return 'yes'\n"
    )
    process = Process(model, tmp_path / "store", "-p", f"{own}:mine", "--quantize", "none")
    try:
        assert "mine" in [shown["name"] for shown in process.up.http.get("/v1/programs").json()["data"]]
        run = process.up.run(program="mine", workers=1)["id"]
        assert process.up.until(run, "finished")["answer"] == "yes"
        assert process.up.post("/v1/runs", {"problem": "x", "program": f"{own}:mine"[-80:]}).status_code == 404
    finally:
        process.end()
