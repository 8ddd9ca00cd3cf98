"""tree: what comes out of one: its answer, its product, rows, episodes and the packed tree, and their files."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from safetensors.torch import load_file

import toy_engine
from kvorum import Budget, Engine, Result, Task, programs
from kvorum.errors import BadRequest
from kvorum.programs.tree import export as out
from kvorum.programs.tree.nodes import ESTIMATORS, PER_EDGE, Tree
from kvorum.programs.tree.tree import tree
from kvorum.store.events import note_data
from kvorum.store.traces import read
from planted_trees import STEPS, planted


@pytest.fixture
def engine() -> Engine:
    return toy_engine.fake(kv_tokens=8192)


def told(result: Result) -> dict[str, Any]:
    """What the program's note on the tree tells."""
    (note,) = (event for event in result.trace.events if event["event"] == "note" and event["kind"] == "tree")
    return note_data(note)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rows_episodes_and_pack_agree(engine: Engine, estimator: str) -> None:
    """Summed over rows, an advantage is the packed one times the leaves below; episodes hold every token once."""
    method = "vineppo" if estimator == "vineppo" else "spo"
    plan = {"copies": 2} if method == "vineppo" else {"segment": 4, "branching": (2, 2)}
    made, _ = planted(engine, method, step="e", **plan)
    for number, leaf in enumerate(made.leaves):
        made.nodes[leaf].reward = float(number % 3 == 0)
    made.estimate(estimator)
    pack, rows = out.packed(made), out.rows(made)
    total: dict[int, float] = {}
    for row in rows:
        token = 0
        for at in row["nodes"]:
            for _ in made.nodes[at].ids:
                total[at] = total.get(at, 0.0) + row["advantages"][token] / len(made.nodes[at].ids)
                assert row["shared"][token] == sum(at in other["nodes"] for other in rows)
                token += 1
    for at, advantage in total.items():
        mine = pack["node"] == at
        if at and all(made.nodes[at].sampled) and method != "vineppo":
            assert advantage == pytest.approx(float((pack["advantages"] * pack["leaves"])[mine][0]), abs=1e-5)
    episodes = out.episodes(made, zero=True)
    assert sum(len(episode["ids"]) for episode in episodes) == made.sampled
    for episode in episodes:
        assert episode["context"][: len(made.nodes[0].ids)] == made.nodes[0].ids
    assert all(episode["advantage"] for episode in out.episodes(made))
    assert (estimator in PER_EDGE) == (estimator not in ("tree-grpo", "grpo", "treepo", "arpo"))


def test_vineppo_values_are_the_rollouts_means(engine: Engine) -> None:
    made, _ = planted(engine, "vineppo", copies=3, script=STEPS, tokens=99, step="\n\n")
    auxiliary = [leaf for leaf in made.leaves if made.nodes[leaf].auxiliary]
    assert len(auxiliary) == 3 * 4
    for number, leaf in enumerate(made.leaves):
        made.nodes[leaf].reward = float(number % 2)
    made.estimate("vineppo")
    chain = next(leaf for leaf in made.leaves if not made.nodes[leaf].auxiliary)
    groups = [auxiliary[at : at + 3] for at in range(0, 12, 3)]
    values = [sum(made.nodes[leaf].reward or 0.0 for leaf in group) / 3 for group in groups]
    expected = [b - a for a, b in zip(values, [*values[1:], made.nodes[chain].reward or 0.0], strict=True)]
    assert [made.nodes[at].advantage for at in made.path(chain)[1:]] == pytest.approx(expected)
    assert len(out.rows(made)) == 1  # auxiliary rollouts are no training rows


@pytest.mark.parametrize("form", get_args(out.ExportForm))
def test_the_program_answers_and_exports(engine: Engine, tmp_path: Any, form: str) -> None:
    path, trace = tmp_path / "out" / f"tree.{form}", tmp_path / "trace.jsonl"
    task = Task("What is 6 x 7?", verify=lambda answer: float(answer == "42"))
    options: dict[str, Any] = {"script": "so\n\nthus\n\n\\boxed{42}", "export": str(path), "form": form, "tokens": 60}
    result = engine.run(tree, task, workers=3, budget=Budget(ticks=999), trace=trace, **options)
    assert (result.answer, result.score, result.outcome) == ("42", 1.0, "answered")
    note = told(result)
    assert note["leaves"] == 6
    assert set(note["rewards"].values()) == {1.0}
    assert note["sampled"] < note["unshared"]
    if form == "packed":
        assert set(load_file(path)) == {
            "ids",
            "positions",
            "node",
            "loss_mask",
            "logprobs",
            "advantages",
            "leaves",
            "enter",
            "exit",
        }
    else:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == (6 if form == "rows" else 0)  # equal rewards: every edge has advantage 0
    again = engine.run(tree, task, workers=3, budget=Budget(ticks=999), replay=read(trace), **options)
    assert (again.answer, again.differences) == ("42", [])


def test_the_tree_is_what_the_run_made_beside_its_answer(engine: Engine, tmp_path: Any) -> None:
    path = tmp_path / "tree.jsonl"
    options: dict[str, Any] = {"method": "vineppo", "copies": 3, "script": STEPS + "\n\n\\boxed{42}", "tokens": 99}
    task = Task("What is 6 x 7?", verify=lambda answer: float(answer == "42"))
    budget = Budget(ticks=9999)
    result = engine.run(tree, task, workers=3, budget=budget, export=str(path), auxiliary=True, **options)
    made = result.product
    assert isinstance(made, Tree)
    assert [made.nodes[leaf].reward for leaf in made.leaves] == [1.0] * len(made.leaves)
    note = told(result)
    assert (note["parents"], note["leaves"]) == (made.parents, len(made.leaves))
    assert note["advantages"] == [node.advantage for node in made.nodes]
    everyone = [json.loads(line) for line in path.read_text().splitlines()]
    assert everyone == out.rows(made, auxiliary=True)
    trained = [row for row in everyone if not row["auxiliary"]]
    assert [row["leaf"] for row in trained] == [row["leaf"] for row in out.rows(made)]
    assert (len(trained), len(everyone)) == (1, len(made.leaves))
    for row in everyone:
        assert row["ids"] == [token for at in made.path(row["leaf"]) for token in made.nodes[at].ids]
        own = [at for at, node in enumerate(row["nodes"]) if made.nodes[node].auxiliary and made.nodes[node].finish]
        assert bool(own) == row["auxiliary"]
    added = len(made.nodes[everyone[-1]["leaf"]].ids)
    assert everyone[-1]["advantages"][-added:] == [0.0] * added
    assert engine.run(programs.solo, "What?", budget=Budget(ticks=4), final_tokens=2).product is None
    with pytest.raises(BadRequest, match="auxiliary=True is of form='rows'"):
        engine.run(tree, task, auxiliary=True, form="packed")


def test_each_tree_inside_a_tree_has_a_file_of_its_own(engine: Engine, tmp_path: Any) -> None:
    path = tmp_path / "tree.jsonl"
    options: dict[str, Any] = {"script": "so\n\n\\boxed{42}", "tokens": 60, "rounds": 0, "export": str(path)}
    engine.run(tree, "What is 6 x 7?", budget=Budget(ticks=999), leaf="tree", leaf_params=options, **options)
    written = sorted(file.name for file in tmp_path.iterdir())
    assert written == ["tree.Alice.jsonl", "tree.Bob.jsonl", "tree.jsonl"]
    for name in written:
        assert len((tmp_path / name).read_text().splitlines()) == 2


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_file_that_cannot_be_written_is_refused_before_the_first_tick(
    engine: Engine, tmp_path: Any, depth: int
) -> None:
    (tmp_path / "file").write_text("no folder")
    params: dict[str, Any] = {"export": str(tmp_path / "file" / "tree.jsonl")}
    for _ in range(depth):
        params = {"leaf": "tree", "leaf_params": params}
    trace = tmp_path / "trace.jsonl"
    with pytest.raises(BadRequest, match=r"tree cannot be written to .*file/tree\.jsonl .*; give another file"):
        engine.run(tree, "What is 6 x 7?", budget=Budget(ticks=9), trace=trace, **params)
    assert not [event for event in read(trace) if event["event"] in ("tick", "forward")]


def test_without_a_verifier_the_majority_is_right(engine: Engine) -> None:
    result = engine.run(
        tree, "p", script="\\boxed{7}", workers=2, budget=Budget(ticks=99), method="treepo", segment=4, width=3
    )
    note = told(result)
    assert set(note["rewards"].values()) == {1.0}
    assert result.answer == "7"
