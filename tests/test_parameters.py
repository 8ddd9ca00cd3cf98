"""Parameters are declared once: what their types and help say is what every check, form and list goes by."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

import toy_engine
from kvorum import Budget, Run, program, programs
from kvorum.errors import BadRequest, KvorumError, UnknownName
from kvorum.jsontypes import Json
from kvorum.runs.annotations import Help
from kvorum.runs.parameters import Parameter, RemoteLimits, Value, parse_parameter
from kvorum.runs.program import Program

LIMITS = RemoteLimits(number=1000, text=50, items=4, workers=4, depth=3)


@program("sample", "one parameter of each kind")
async def sample(
    run: Run,
    *,
    yes: bool = True,
    count: Annotated[int, Help("How many.", low=1, high=9)] = 2,
    share: Annotated[float, Help("How much.", low=0)] = 0.5,
    words: str = "",
    layout: Annotated[Literal["near", "far"], Help("How far apart.")] = "near",
    perhaps: Literal["a", "b"] | None = None,
    ways: Annotated[int | Sequence[int] | None, Help("How many ways, at each level.", low=1)] = None,
    names: Sequence[str] = (),
    told: Mapping[str, str] | None = None,
    path: Annotated[str | None, Help("Where to write.", local=True)] = None,
    hooks: Sequence[Callable[[str], str]] = (),
    hook: Callable[..., str] | None = None,
    inner: Annotated[str, Help("Which program goes on.", program=True)] = "",
    inner_params: Annotated[Mapping[str, Json] | None, Help("Its parameters.", params_of="inner")] = None,
) -> str | None:
    return None


KINDS = {
    "yes": "boolean",
    "count": "integer",
    "share": "number",
    "words": "text",
    "layout": "text",
    "perhaps": "text",
    "ways": "integer",
    "names": "list",
    "told": "mapping",
    "path": "text",
    "hooks": "local",
    "hook": "local",
    "inner": "program",
    "inner_params": "mapping",
}


def test_the_types_say_what_a_parameter_is() -> None:
    found = {parameter.name: parameter for parameter in sample.parameters}
    assert {name: parameter.kind for name, parameter in found.items()} == KINDS
    assert found["layout"].choices == ("near", "far")
    assert [name for name, one in found.items() if one.local] == ["path", "hooks", "hook"]
    assert [name for name, one in found.items() if one.optional] == [
        "perhaps",
        "ways",
        "told",
        "path",
        "hook",
        "inner_params",
    ]
    assert (found["count"].low, found["count"].high, found["count"].help) == (1, 9, "How many.")
    assert (found["ways"].items, found["names"].items, found["told"].items) == ("integer", "text", "text")
    assert sample.params["count"] == 2


GOOD: list[dict[str, Value]] = [
    {"yes": False, "count": 9, "share": 3, "words": "ä", "layout": "far"},
    {"perhaps": None, "ways": [1, 2], "names": ["x"], "told": {"a": "b"}},
    {"ways": 3, "inner": "vote", "inner_params": {"answer": "code", "workers": 2}},
]
BAD: list[tuple[dict[str, Value], str]] = [
    ({"yes": 1}, "true or false"),
    ({"count": True}, "whole number"),
    ({"count": 10}, "from 1 to 9"),
    ({"count": 2.0}, "whole number"),
    ({"count": None}, "whole number"),
    ({"share": float("nan")}, "finite number"),
    ({"share": -1}, "at least 0"),
    ({"words": b"x"}, "text"),
    ({"words": "\udce4"}, "UTF-8"),
    ({"layout": "nonsense"}, "did you mean|there are: near, far"),
    ({"ways": [1, "x"]}, "whole number"),
    ({"ways": [0]}, "at least 1"),
    ({"names": "x"}, "list"),
    ({"names": [1]}, "list"),
    ({"told": {"a": 1}}, "mapping"),
    ({"speed": 1}, "has no parameter 'speed'"),
    ({"inner": "nobody"}, "nobody"),
    ({"inner": "vote", "inner_params": {"speed": 1}}, "vote has no parameter 'speed'"),
    ({"inner": "vote", "inner_params": {"answer": 1}}, "vote: answer=1"),
    ({"inner": "vote", "inner_params": {"workers": 0}}, "at least 1"),
    ({"inner_params": {"answer": "code"}}, "needs inner"),
]


@pytest.mark.parametrize("params", GOOD)
def test_what_is_taken(params: dict[str, Value]) -> None:
    assert sample.check(params) == params
    assert sample.check(params, remote=LIMITS) == params


@pytest.mark.parametrize(("params", "words"), BAD)
def test_what_is_refused(params: dict[str, Value], words: str) -> None:
    for remote in (None, LIMITS):
        with pytest.raises(KvorumError, match=words) as refused:
            sample.check(params, remote=remote)
        assert refused.value.param is not None
        assert refused.value.param.split(".")[0] in params


TEXTS: list[tuple[str, str, Value]] = [
    ("yes", "no", False),
    ("count", "3", 3),
    ("share", "3", 3.0),
    ("words", "none", "none"),
    ("perhaps", "none", None),
    ("ways", "3", 3),
    ("ways", "[3, 2]", [3, 2]),
    ("names", '["x"]', ["x"]),
    ("told", '{"a": "b"}', {"a": "b"}),
    ("path", "x.json", "x.json"),
    ("layout", "far", "far"),
    ("inner", "vote", "vote"),
]


def test_parameters_from_a_command_line() -> None:
    for name, text, value in TEXTS:
        assert parse_parameter(sample.parameter(name), text) == value
    for name, text, words in (
        ("yes", "perhaps", "true or false"),
        ("count", "soon", "whole number from 1 to 9"),
        ("count", "12", "from 1 to 9"),
        ("names", "x", "a list"),
        ("hooks", "f", "from Python"),
    ):
        with pytest.raises(BadRequest, match=words):
            parse_parameter(sample.parameter(name), text)
    with pytest.raises(UnknownName, match="near, far"):
        parse_parameter(sample.parameter("layout"), "x")


def test_a_parameter_needs_a_default_and_a_type_that_is_there() -> None:
    async def bare(run: Run, *, x) -> str | None:  # type: ignore[no-untyped-def]
        return None

    async def untold(run: Run, *, x: NotThere = 1) -> str | None:  # type: ignore[name-defined]  # noqa: F821
        return None

    with pytest.raises(BadRequest, match="x of bare needs a default"):
        program("bare", "no default")(bare)
    with pytest.raises(BadRequest, match="NotThere"):
        program("untold", "a type that nobody imports")(untold)


@pytest.mark.parametrize("name", programs.REGISTRY)
def test_every_parameter_says_what_it_is_and_defaults_to_what_it_takes(name: str) -> None:
    found = programs.find(name)
    assert found.check(found.params) == found.params
    for parameter in found.parameters:
        assert parameter.help.endswith(".")
        assert parameter.help[0].isupper() or parameter.help[1] == ":" or parameter.help[0].isdigit()
        assert len(set(parameter.choices)) == len(parameter.choices)
        assert (parameter.kind == "local") <= parameter.local
    listed = {one["name"]: one for one in found.as_dict(local=False)["params"]}  # type: ignore[index, union-attr, call-overload]
    assert set(listed) == {parameter.name for parameter in found.parameters if not parameter.local}
    json.dumps(found.as_dict())


CHOSEN = [
    (one.name, parameter) for one in programs.REGISTRY.values() for parameter in one.parameters if parameter.choices
]


@pytest.mark.parametrize(("name", "parameter"), CHOSEN, ids=[f"{name}-{one.name}" for name, one in CHOSEN])
def test_another_word_is_refused_before_the_run_begins(name: str, parameter: Parameter) -> None:
    given: dict[str, Any] = {parameter.name: "qqq"}
    with pytest.raises(UnknownName, match=f"^{name}: There is no {parameter.name} 'qqq'") as refused:
        toy_engine.fake().run(programs.find(name), "Count.", **given)
    for word in parameter.choices:
        assert word in str(refused.value)


def test_nobody_gets_more_workers_than_have_work() -> None:
    for name, workers in (("solo", 3), ("thread", 2), ("roleplay", 3), ("roleplay", 1)):
        with pytest.raises(BadRequest, match=f"{workers} workers are not possible for {name}"):
            toy_engine.fake().run(programs.find(name), "Count.", workers=workers)
    before = toy_engine.fake().run(programs.solo, "Count.", budget=Budget(ticks=3))
    start = next(event.copy() for event in before.trace.events if event["event"] == "start")
    start["workers"] = ["Alice", "Bob", "Carol"]
    again = toy_engine.fake().run(
        programs.solo, "Count.", workers=3, budget=Budget(ticks=3), replay=[start, *before.trace.events[1:]]
    )
    assert [worker.name for worker in again.workers] == ["Alice"], "a trace of before still replays"
    assert again.differences == []


TOGETHER: list[tuple[str, dict[str, Any], str]] = [
    ("consensus", {"byzantine": 4}, "4 Byzantine agents of 4: at least one must be honest"),
    ("consensus", {"low": 60}, "no value from 60 to 50"),
    ("tree", {"branching": 2}, "tree-grpo has no branching"),
    ("tree", {"method": "spo", "branching": []}, "no ways at any fork"),
]


@pytest.mark.parametrize(("name", "params", "words"), TOGETHER)
def test_what_cannot_be_together_is_refused_before_the_run_begins(
    name: str, params: dict[str, Any], words: str, tmp_path: Path
) -> None:
    found, trace = programs.find(name), tmp_path / "trace.jsonl"
    with pytest.raises(BadRequest, match=words):
        toy_engine.fake().run(found, "Count.", trace=trace, **params)
    assert not trace.exists()
    outer: dict[str, Any] = {"leaf": name, "leaf_params": params}
    with pytest.raises(BadRequest, match=words):
        programs.tree.check(outer)
    assert found.check(params) == params, "each is fine alone"


def test_a_program_may_say_what_cannot_be_together() -> None:
    def fewer(workers: int, *, rounds: int, start: int) -> None:
        if rounds * workers < start:
            raise BadRequest("too few")

    @program("rounds", "as many as there are", workers=2, together=fewer)
    async def counted(run: Run, *, rounds: int = 3, start: int = 5) -> str | None:
        return "done"

    assert counted.check({"rounds": 1}) == {"rounds": 1}
    assert counted.check({"rounds": 1}, workers=5) == {"rounds": 1}
    with pytest.raises(BadRequest, match="too few"):
        counted.check({"rounds": 1}, workers=2)
    assert toy_engine.fake().run(counted, "x").answer == "done"


# -- programs inside programs: no depth is beyond the checks ---------------------------------------------------------


def places() -> Iterator[tuple[Program, Parameter, Parameter]]:
    """Everywhere where a program may stand in another: that program, the name's parameter and the parameters'."""
    for outer in programs.REGISTRY.values():
        for holder in outer.parameters:
            if holder.params_of is not None:
                yield outer, outer.parameter(holder.params_of), holder


def nested(depth: int, innermost: str, given: Mapping[str, Value]) -> Iterator[tuple[Program, dict[str, Value]]]:
    """Parameters of every program that can hold another, in which ``innermost`` stands ``depth`` programs down."""
    for outer, named, holder in places():
        if depth == 1:
            yield outer, {named.name: innermost, holder.name: given}
        else:
            for middle, params in nested(depth - 1, innermost, given):
                yield outer, {named.name: middle.name, holder.name: params}


def test_a_program_can_stand_in_another() -> None:
    assert [(outer.name, holder.name) for outer, _, holder in places()] == [
        (name, "leaf_params") for name in ("branch", "outline", "tree")
    ]
    for outer in programs.REGISTRY.values():
        named = [parameter.name for parameter in outer.parameters if parameter.kind == "program"]
        assert named == [holder.params_of for other, _, holder in places() if other is outer], "each has its parameters"


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("inner", programs.REGISTRY)
def test_local_parameters_are_refused_at_any_depth(inner: str, depth: int) -> None:
    given: dict[str, Value]
    for parameter in programs.find(inner).parameters:
        given = {parameter.name: parameter.default if parameter.default is not None else "x"}
        for outer, params in nested(depth, inner, given):
            for form in (params, as_text(params)):
                if parameter.local:
                    with pytest.raises(BadRequest, match=f"{parameter.name} is given by whoever runs"):
                        outer.check(form, remote=LIMITS)
                elif parameter.default is not None and not isinstance(parameter.default, tuple):
                    outer.check(form, remote=RemoteLimits())


@pytest.mark.parametrize("inner", programs.REGISTRY)
def test_limits_hold_at_any_depth(inner: str) -> None:
    too_much: list[tuple[dict[str, Value], str]] = [({"workers": 5}, "worker")]
    for parameter in programs.find(inner).parameters:
        if not parameter.local and parameter.kind == "text" and not parameter.choices:
            too_much.append(({parameter.name: "x" * 51}, "at most 50 characters"))
        if not parameter.local and parameter.kind in ("integer", "number") and (parameter.high or 1001) > 1000:
            too_much.append(({parameter.name: 1001}, "within 1000|from .* to"))
    alone = programs.find(inner).together is None  # otherwise so much may not go with the other defaults
    for given, words in too_much:
        programs.find(inner).check(given) if "workers" not in given else None
        for outer, params in nested(2, inner, given):
            outer.check(params) if alone and "workers" not in given else None
            with pytest.raises(BadRequest, match=words):
                outer.check(params, remote=LIMITS)
    for outer, params in nested(3, inner, {"workers": 1}):
        with pytest.raises(BadRequest, match="At most 3 programs"):
            outer.check(params, remote=LIMITS)


def as_text(params: dict[str, Value]) -> dict[str, Value]:
    """The inner parameters as JSON in a text, as a command line once gave them."""
    return {name: json.dumps(value) if isinstance(value, Mapping) else value for name, value in params.items()}


def test_the_table_of_the_docs_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "tools")
    tool = importlib.import_module("parameter_table")
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.written(page) == page, "run tools/parameter_table.py"
    for found in programs.REGISTRY.values():
        for parameter in found.parameters:
            assert f"| `{parameter.name}` |" in page
