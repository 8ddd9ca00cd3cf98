"""What `/v1/programs` says of programs and parameters: what each program declares of itself, but for what is local."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import toy
from kvorum import programs
from serving import Served, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(toy.engine(name="toy"), tmp_path_factory.mktemp("store"), ticks=40) as up:
        yield up


def test_programs_are_shown_as_they_declare_themselves(server: Served) -> None:
    reply = server.http.get("/v1/programs").json()
    assert reply["default"] == programs.DEFAULT
    assert [program["name"] for program in reply["data"]] == list(programs.REGISTRY)
    for shown in reply["data"]:
        program = programs.find(shown["name"])
        offered = [parameter for parameter in program.parameters if not parameter.local]
        assert [parameter["name"] for parameter in shown["params"]] == [parameter.name for parameter in offered]
        for parameter, told in zip(offered, shown["params"], strict=True):
            assert (told["kind"], told["help"]) == (parameter.kind, parameter.help)
            assert tuple(told["choices"] or ()) == parameter.choices
            assert (told["low"], told["high"]) == (parameter.low, parameter.high)
            if parameter.choices:
                assert told["default"] in (*parameter.choices, None)


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
    reply = server.post("/v1/runs", {"problem": "Count.", "program": program, "params": {name: "other"}})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, f"params.{name}")
    assert all(word in error["message"] for word in choices)
