"""The ladder of teams: its problems, their floors and ceilings and how answers are read; what each arm's workers see.

Covers: the rule, followed by a script, solves every item in the rounds that there are, and to keep what one began with
solves none; without what one had before the rule fails, but for the leader; pairs of neighbours that are right are
counted, and what cannot be read is told from what is wrong; views of each arm; a memory that is kept, stale or zeroed;
a replay without a memory; the study that ships. Not covered: how well a model does.
"""

from __future__ import annotations

import importlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Run, Sampling, program, programs
from kvorum.errors import BadRequest, UnknownName
from kvorum.kv import Span
from kvorum.lab.study.study import Study
from kvorum.programs.ladder import known
from kvorum.tasks.families import make
from kvorum.tasks.ladder.teams import KINDS, ROUNDS, TeamProblem, team_problem

NAMES = ("Alice", "Bob", "Carol", "Dave")
TOOLS = Path(__file__).parent.parent / "tools"
STUDY = Path(__file__).parent.parent / "studies" / "team_ladder.yaml"


def problem(kind: str, seed: int) -> TeamProblem:
    return team_problem(kind, random.Random(f"{kind}/{seed}"), NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_is_the_ceiling_and_to_keep_what_one_has_is_not_enough(kind: str) -> None:
    random_scores, forgetful_scores = [], []
    for seed in range(100):
        made = problem(kind, seed)
        assert made.score_of(made.play()).solved
        assert not made.score_of(made.begins).solved
        item = make("team_ladder", seed, NAMES, kind=kind)
        assert item.score(item.solution).solved
        assert item.score(item.constant).soft == 0
        draw = random.Random(seed)
        random_scores += [made.score_of(made.guess(draw)).solved for _ in range(20)]
        forgetful_scores.append(made.score_of(made.play(forgets=True)).solved)
    assert sum(random_scores) / len(random_scores) < 0.2
    assert (sum(forgetful_scores) == 100) == KINDS[kind].always, "only who is told what it has at every turn can do so"


def test_pairs_of_neighbours_are_counted_and_an_unreadable_answer_is_one_of_form() -> None:
    made = problem("leader", 1)
    best = next(iter(made.play().values()))
    told = dict.fromkeys(NAMES, f'{{"ticket": {best}}}')
    assert made.score(json.dumps({"answers": told})).solved
    assert made.score(json.dumps({"answers": dict.fromkeys(NAMES, f"The leader has {best}.")})).solved
    foreign = made.score(json.dumps({"answers": dict.fromkeys(NAMES, "100")}))
    assert (foreign.soft, foreign.solved, foreign.readable) == (0, False, True)
    mute = made.score(json.dumps({"answers": {**told, "Dave": "I do not know."}}))
    assert (mute.solved, mute.readable) == (False, False)
    assert mute.soft == pytest.approx(1 - len(made.neighbours["Dave"]) / len(made.edges))
    assert not made.score(json.dumps({"answers": {name: told[name] for name in NAMES[:3]}})).readable
    assert not made.score(None).readable
    colours = problem("colouring", 1)
    same = colours.score(json.dumps({"answers": dict.fromkeys(NAMES, "Red")}))
    assert (same.soft, same.readable) == (0, True)
    assert not colours.score(json.dumps({"answers": dict.fromkeys(NAMES, "red or green")})).readable


def test_the_table_of_floors_in_the_evidence_is_what_scripts_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module("evidence_tables")
    name, made = tool.TABLES["teams"]
    page = (tool.DOCS / name).read_text(encoding="utf-8")
    assert tool.written(page, "teams", made()) == page, "run: python tools/evidence_tables.py"


def test_what_cannot_be_made_is_named() -> None:
    with pytest.raises(BadRequest, match="for 4 workers, not for 3"):
        make("team_ladder", 0, 3)
    with pytest.raises(UnknownName, match="no kind of problem"):
        make("team_ladder", 0, kind="leaders")
    with pytest.raises(UnknownName, match="no worker 'Eve'"):
        run(neighbours={"Alice": ["Eve"]})


def test_a_budget_ends_it_with_what_there_is() -> None:
    task = make("team_ladder", 3, kind="leader").task(program="team_ladder")
    result = toy_engine.fake().run(programs.team_ladder, task, workers=4, rounds=10**9, budget=Budget(ticks=40))
    assert result.spent


def run(kind: str = "agreement", seed: int = 3, **params: Any) -> tuple[dict[str, dict[str, str]], Any]:
    """A run on the toy: of each worker the text of every block in its last view by name, and the result."""
    item = make("team_ladder", seed, kind=kind)
    seen: dict[str, dict[str, str]] = {}

    @program("around", "runs the ladder and looks at what its workers see", workers=4)
    async def around(run: Run) -> str | None:
        answer = await programs.team_ladder.function(run, **{**item.given["team_ladder"], "tokens": 12, **params})
        for worker in run.workers[:4]:
            spans = [part for part in worker.view.items if isinstance(part, Span)]
            named = [("own" if not part.block.sealed else part.block.name, run.read(part.block.ids)) for part in spans]
            seen[worker.name] = dict(named)
            assert len(seen[worker.name]) == len(spans)
        return answer

    budget = Budget(ticks=900)
    result = toy_engine.fake().run(around, item.prompt, workers=4, budget=budget, sampling=Sampling())
    return seen, result


def test_each_arm_sees_what_it_says_and_nothing_else() -> None:
    made, mail = problem("agreement", 3), []
    for memory, skill, protocol in itertools.product(("none", "recalled"), ("none", "needed"), ("free", "typed")):
        seen, result = run(memory=memory, skill=skill, protocol=protocol)
        mail = [event["words"] for event in result.trace.events if event.get("kind") == "wrote"]
        assert len(mail) == ROUNDS + 1
        for name, blocks in seen.items():
            assert made.kind.goal in blocks["opening"]
            assert ("memory" in blocks) == (memory == "recalled")
            assert ("skill" in blocks) == (skill == "needed")
            assert (made.message_words in blocks["own"]) == (protocol == "typed")
            for other in NAMES:
                heard = f"{other} wrote: {mail[-2][other]}".strip()
                assert (heard in blocks["own"]) == (other in made.neighbours[name])
            told = made.kind.told.format(made.begins[name])
            assert told not in blocks["own"], "it was told in the first round alone"
            if memory == "recalled":
                assert told in blocks["memory"]
                plain = "".join(mark if mark.isprintable() else " " for mark in mail[-2][name]).strip()
                assert f"You wrote in round {ROUNDS}: {plain}" in blocks["memory"]
                assert "round 1" not in blocks["memory"]
            if skill == "needed":
                assert made.kind.skill.body in blocks["skill"]
    assert made.kind.other.body in run(skill="other")[0]["Alice"]["skill"]


def test_a_stale_memory_holds_the_beginning_alone_and_a_zeroed_one_nothing() -> None:
    stale = run(memory="stale")[0]
    assert all("You begin with" in blocks["memory"] for blocks in stale.values())
    assert all("round" not in blocks["memory"] for blocks in stale.values())
    there, zeroed = run()[0], run(memory="zeroed")[0]
    assert all("memory" not in blocks and len(blocks) == len(there[name]) for name, blocks in zeroed.items())
    always = problem("leader", 3)
    for name, blocks in run("leader")[0].items():
        assert always.kind.told.format(always.begins[name]) in blocks["own"], "at every turn"


def test_typed_words_are_messages_and_cut_ones_no_answers() -> None:
    for kind in KINDS:
        _, result = run(kind, tokens=32)
        answers = json.loads(result.answer)["answers"]
        assert set(answers) == set(NAMES)
        assert all(list(json.loads(words)) == [KINDS[kind].field] for words in answers.values())
        assert make("team_ladder", 3, kind=kind).score(result.answer).readable
    _, result = run(tokens=2)
    assert json.loads(result.answer)["answers"] == {}
    assert result.product.measures()["cut"] == 1


def test_a_replay_opens_no_memory_and_reads_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    item = make("team_ladder", 3, kind="agreement")
    task, params = item.task(program="team_ladder"), {**item.given["team_ladder"], "tokens": 12}

    def work(**more: Any) -> Any:
        return toy_engine.fake().run(programs.team_ladder, task, workers=4, sampling=Sampling(), **params, **more)

    first = work()
    monkeypatch.setattr(known, "TemporaryDirectory", None)
    again = work(replay=first.trace.events)
    assert (again.answer, again.differences) == (first.answer, [])


@pytest.mark.parametrize("how", ["decided", "written"])
def test_the_skill_may_be_selected_by_a_decision_or_by_the_model(how: str) -> None:
    _, result = run(skill=how)
    assert result.product.right == (result.product.skill == KINDS["agreement"].skill.name)
    assert run()[1].product.right is None


def test_the_study_that_ships_is_two_to_the_three_with_controls_and_claims() -> None:
    study = Study.read(STUDY)
    assert sum(bool(arm.levels) for arm in study.arms) == 8
    assert {arm.label for arm in study.arms if not arm.levels} >= {"stale memory", "another skill"}
    assert study.items * len(study.tasks) >= 60
    assert study.kept
    assert study.claims
    assert not any(claim.explored for claim in study.claims)
    for kind in KINDS.values():
        assert abs(len(kind.skill.body) - len(kind.other.body)) <= 16, "another skill of about the same length"
