"""The ladder: its problems and their reading, what each arm of the program sees, and factorial designs in studies.

Covers: a right answer is worth 1 in either form, and one that cannot be read is told from a wrong one; what was told
reaches the model through a real memory, updated or stale; each arm's view has the blocks that it says and no other;
who selects the skill; a design with planted effects gives them back; the YAML of the study that ships. Not covered: how
well a model does.
"""

from __future__ import annotations

import importlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy_engine
from kvorum import Budget, Run, Sampling, program, programs
from kvorum.errors import BadRequest, UnknownName
from kvorum.kv import Span
from kvorum.lab.report.factors import designs, pieces
from kvorum.lab.report.page import Table, as_markdown
from kvorum.lab.statistics.factorial import ALL, effects
from kvorum.lab.study.crossed import BARE
from kvorum.lab.study.study import Study
from kvorum.tasks.families import make
from kvorum.tasks.ladder.family import problem
from kvorum.tasks.ladder.kinds import KINDS, SKILLS

OWN = "own"
TOOLS = Path(__file__).parent.parent / "tools"
STUDY = Path(__file__).parent.parent / "studies" / "ladder.yaml"


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000))
def test_answers_are_read_in_either_form(kind: str, seed: int) -> None:
    made = problem(kind, seed)
    wrong = next(word for word in made.options if word != made.answer) if made.options else str(int(made.answer) + 1)
    value = f'"{made.answer}"' if made.options else made.answer
    for text in (
        made.answer,
        f"It is {made.answer}.",
        f'{{"answer": {value}}}',
        f'Well.\n```\n{{"answer": {value}}}\n```',
    ):
        assert made.score(text).solved, text
    assert made.score(wrong).soft == 0
    assert made.score(wrong).readable
    for nothing in (None, "", "I cannot know that.", "{}"):
        assert not made.score(nothing).readable
        assert made.score(nothing).soft == 0
    if made.options:
        assert not made.score(f"{made.answer} or {wrong}").readable
    assert made.needed != made.other
    assert {made.needed, made.other} < {skill.name for skill in made.skills}
    assert made.score(made.guess(random.Random(seed))).readable


def test_an_answer_takes_what_was_told_last() -> None:
    """A fact's answer stands in the last note that names whom it asks for; of a correction it is not that of before."""
    corrected = 0
    for seed in range(40):
        for kind in ("facts", "units", "dates"):
            made = problem(kind, seed)
            late = [note for note in made.notes if note.corrects]
            corrected += bool(late)
            assert all(note.corrects in [one.text for one in made.notes] for note in late)
        made = problem("facts", seed)
        name = next(name for name in made.question.split() if any(name in note.text for note in made.notes[:3]))
        assert made.answer in [note.text for note in made.notes if name in note.text][-1]
    assert 50 < corrected < 110


def run(kind: str = "units", seed: int = 3, **params: Any) -> tuple[dict[str, str], Any]:
    """A run on the toy: the text of every block in the worker's view by name, and the result."""
    item = make("ladder", seed, kind=kind)
    seen: dict[str, list[str]] = {}

    @program("around", "runs the ladder and looks at what its worker sees")
    async def around(run: Run) -> str | None:
        answer = await programs.ladder.function(run, **{**item.given["ladder"], "tokens": 14, **params})
        worker = run.workers[0]
        for part in worker.view.items:
            if isinstance(part, Span) and not part.block.sealed:
                seen.setdefault(OWN, []).append(run.read(part.block.ids))
            elif isinstance(part, Span):
                seen.setdefault(part.block.name, []).append(run.read(part.block.ids))
        return answer

    result = toy_engine.fake().run(around, item.texts["ladder"], budget=Budget(ticks=400), sampling=Sampling())
    return {name: "".join(words) for name, words in seen.items()}, result


def test_each_arm_sees_what_it_says_and_nothing_else() -> None:
    made = problem("units", 3)
    body = {skill.name: skill.body for skill in made.skills}
    told = [note.text for note in made.notes if note.text.startswith("The ")]
    for memory, skill, protocol in itertools.product(("none", "recalled"), ("none", "needed"), ("free", "typed")):
        seen, _ = run(memory=memory, skill=skill, protocol=protocol)
        assert ("memory" in seen) == (memory == "recalled")
        assert ("skill" in seen) == (skill == "needed")
        own = seen[OWN]
        assert made.question in own
        assert (made.message_words in own) == (protocol == "typed")
        if memory == "recalled":
            assert told[-1] in seen["memory"]
        if skill == "needed":
            assert body[made.needed] in seen["skill"]
    assert body[made.other] in run(skill="other")[0]["skill"]
    assert "told" not in run(protocol="told")[0]


def test_a_typed_answer_is_a_message_and_a_cut_one_is_none() -> None:
    _, result = run(tokens=32)
    assert isinstance(json.loads(result.answer)["answer"], int)
    _, result = run(tokens=2)
    assert result.answer is None
    assert result.product.measures()["cut"] == 1


def corrected(kind: str) -> int:
    return next(seed for seed in range(99) if any(note.corrects for note in problem(kind, seed).notes))


def test_a_stale_memory_holds_what_was_true_before_and_an_updated_one_does_not() -> None:
    seed = corrected("units")
    new = next(note for note in problem("units", seed).notes if note.corrects)
    fresh, stale = (run("units", seed, memory=how)[0]["memory"] for how in ("recalled", "stale"))
    assert new.text in fresh
    assert new.corrects not in fresh, "it was updated, so the old one is not recalled"
    assert new.corrects in stale
    assert new.text not in stale
    seed = next(
        seed
        for seed in range(99)
        for made in [problem("facts", seed)]
        if made.notes[-1].text.split()[0] == made.question.split()[-3]
    )
    moved = problem("facts", seed).notes[-1]
    both = run("facts", seed)[0]["memory"]
    assert both.index(moved.corrects) < both.index(moved.text), "it was only told, so both stand there, the newer last"


def test_zeroed_texts_have_their_length_and_nothing_of_them() -> None:
    for what, gone in (("memory", run(memory="zeroed")[0]), ("skill", run(skill="zeroed")[0])):
        there, _ = run()
        assert what in there
        assert what not in gone
        assert len(gone) >= len(there)


@pytest.mark.parametrize("how", ["decided", "written"])
def test_the_skill_may_be_selected_by_a_decision_or_by_the_model(how: str) -> None:
    names = {skill.name for skill in problem("units", 3).skills}
    _, result = run(skill=how)
    assert result.product.skill in names | {""}
    assert result.product.right == (result.product.skill == problem("units", 3).needed)
    assert run()[1].product.right is None


def test_a_skill_that_is_not_there_is_named() -> None:
    with pytest.raises(BadRequest, match="no skill 'nail'"):
        run(needed="nail")


# -- designs in studies ------------------------------------------------------------------------------------------------


def design(items: int = 8, **changes: Any) -> Study:
    factors = {"memory": ["none", "recalled"], "skill": ["none", "needed"], "protocol": ["free", "typed"]}
    arms = [
        {"program": "ladder", "factors": factors, **changes},
        {"program": "ladder", "label": "zeroed", "params": {"skill": "zeroed"}},
    ]
    tasks = [{"family": "ladder", "kind": kind, "label": kind} for kind in ("facts", "units")]
    return Study.of({"name": "design", "models": ["toy"], "items": items, "budgets": [8], "tasks": tasks, "arms": arms})


def test_factors_stand_for_an_arm_of_each_combination() -> None:
    arms = design().arms[:8]
    assert [arm.label for arm in arms][:3] == [BARE, "typed", "needed"]
    assert arms[-1].label == "recalled+needed+typed"
    assert arms[-1].params == {"memory": "recalled", "skill": "needed", "protocol": "typed"}
    assert dict(arms[1].levels) == {"memory": False, "skill": False, "protocol": True}
    with pytest.raises(BadRequest, match="two levels"):
        design(factors={"memory": ["none"]})
    with pytest.raises(BadRequest, match="no label"):
        design(label="x")
    with pytest.raises(UnknownName, match="no memory 'everything'"):
        design(factors={"memory": ["none", "everything"]})


def planted(study: Study) -> pd.DataFrame:
    """Scores of memory +0.2, memory with skill +0.4 on top, nothing else; typed answers are always readable."""
    draw = random.Random(0)
    rows = []
    for cell in study.cells:
        has = {name: cell.params.get(name) not in ("none", "free") for name in ("memory", "skill", "protocol")}
        chance = 0.1 + 0.2 * has["memory"] + 0.4 * (has["memory"] and has["skill"])
        solved = int(draw.random() < chance) if cell.label != "zeroed" else int(draw.random() < 0.3)
        readable = 1 if has["protocol"] or solved else int(draw.random() < 0.5)
        named = {
            name: getattr(cell, name) for name in ("model", "task", "item", "arm", "team", "budget", "seed", "program")
        }
        rows.append(
            {
                **named,
                "score": solved,
                "solved": solved,
                "readable": readable,
                "total_tokens": 40 + 20 * has["memory"],
                "decoded": 5,
                "wall_seconds": 1.0,
            }
        )
    return pd.DataFrame(rows)


def test_planted_effects_are_found_and_others_are_not() -> None:
    study = design(items=60)
    (levels,) = designs(study)
    table = planted(study)
    told = effects(table[table["task"] == "units"], levels, ["score"])
    found = {effect.factors: effect for effect in told if effect.task == ALL}
    assert len(found) == 7
    for name, value in {("memory",): 0.4, ("skill",): 0.2, ("memory", "skill"): 0.4, ("protocol",): 0.0}.items():
        one = found[name]
        assert one.value.low <= value <= one.value.high, (name, one)
        assert (one.p is not None and one.p < 0.05) == (value > 0), (name, one)
        assert one.value.n == 60


def test_an_item_that_an_arm_lacks_is_left_out_and_the_report_tells_form_from_task() -> None:
    study = design()
    table = planted(study)
    lacking = table[~((table["item"] == 7) & (table["arm"] == "ladder/typed"))]
    told = pieces(study, lacking)
    shown = as_markdown(told)
    tables = [piece for piece in told if isinstance(piece, Table)]
    effects_of = {(row[0], row[1]): row for row in tables[1].rows}
    assert effects_of[ALL, "memory"][2] == "14", "of 16 items 2 are not complete"
    arms = {row[0]: row for row in tables[0].rows}
    typed = arms["recalled+typed"]
    assert typed[4] == "0", "a typed answer is never unreadable"
    assert int(arms[BARE][4]) > 1
    assert "Not found:" in shown
    assert "zeroed" in shown
    assert (
        pieces(
            Study.of(
                {
                    "name": "x",
                    "models": ["toy"],
                    "budgets": [8],
                    "tasks": [{"family": "ladder"}],
                    "arms": [{"program": "ladder"}],
                }
            ),
            table,
        )
        == []
    )


def test_the_study_that_ships_is_two_to_the_three_with_controls() -> None:
    study = Study.read(STUDY)
    assert sum(bool(arm.levels) for arm in study.arms) == 8
    assert {arm.label for arm in study.arms if not arm.levels} >= {
        "stale memory",
        "zeroed memory",
        "another skill",
        "skill by decide",
    }
    assert study.items * len(study.tasks) >= 60
    assert study.kept
    lengths = {
        kind: abs(len(SKILLS[made.needed].body) - len(SKILLS[made.other].body))
        for kind in KINDS
        for made in [problem(kind, 0)]
    }
    assert max(lengths.values()) <= 16, "another skill of about the same length"


def test_the_tables_of_the_evidence_are_those_of_the_finished_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module("evidence_tables")
    name, make = tool.TABLES["ladder"]
    page = (tool.DOCS / name).read_text(encoding="utf-8")
    assert tool.written(page, "ladder", make()) == page, "run: python tools/evidence_tables.py"


def test_what_was_quoted_once_is_remembered_and_costs_less_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS.parent / "benchmarks"))
    bench = importlib.import_module("again")
    made = problem("operator", 0)
    bodies = {skill.body for skill in SKILLS.values()}
    took = {}
    for way in bench.WAYS:
        solver = bench.Solver(toy_engine.fake(), way, tmp_path / way)
        if way == "growing":  # whatever the toy quotes is remembered; let it be found by the next question
            solver.memory.remember(SKILLS[made.needed].body)
        took[way] = [solver.solve(made.question, dict(made.message)) for _ in range(2)]
    assert took["handbook"][0]["encoded"] == took["handbook"][1]["encoded"]
    assert took["kept"][1]["encoded"] < took["kept"][0]["encoded"] == took["handbook"][0]["encoded"]
    assert [one["recalled"] for one in took["growing"]] == [True, True]
    fresh = bench.Solver(toy_engine.fake(), "growing", tmp_path / "fresh")
    first = fresh.solve(made.question, dict(made.message))
    assert not first["recalled"]
    assert first["quoted"] in bodies
    assert first["quoted"] in [entry.text for entry in fresh.memory.list()]
    lines = [
        {"sequence": 0, "at": at, "way": way, "right": way != "kept" or not at, "encoded": 20, "written": 4}
        for way in bench.WAYS
        for at in range(2)
    ]
    assert "| kept | 2 | 1 | 40 | 8 | 48 |" in bench.report(lines)
    assert "| growing | 1 |" in bench.report(lines[:-1]), "items that a way has not had are left out"
