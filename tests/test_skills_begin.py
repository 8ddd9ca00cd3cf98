"""Skills that are on before a worker begins: by hand, and by a decision; for an agent, for a crew, on the command line.

Which skill a model decides for is not judged here: with the toy any may be, and the trace says which.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Result, Run, programs
from kvorum.cli import main
from kvorum.errors import BadRequest
from kvorum.harness.crew_files.reading import read_crew
from kvorum.harness.skills.disclosure import NONE
from kvorum.runs.injection import Injection

USE = '<tool_call>\n{"name": "use_skill", "arguments": {"name": "tea"}}\n</tool_call>'
CREW = """
workers:
  Ann: {role: You brew., skills: [tea, coffee], use: %s}
  Ben: You drink.
steps:
  go: {who: all, ask: Go., says: {t: text}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name, body in (("tea", "Use hot water."), ("coffee", "Grind it.")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "SKILL.md").write_text(f"---\nname: {name}\ndescription: How {name} is made.\n---\n{body}\n")
    return str(tmp_path)


def work(plan: Any, says: dict[str, list[str]], **given: Any) -> tuple[Result, dict[str, str]]:
    """The result, and what each worker sees at the end."""
    runs: list[Run] = []
    said = [
        Injection("say", name, turn=turn, text=text, end=True)
        for name, texts in says.items()
        for turn, text in enumerate(texts)
    ]
    engine = toy_engine.fake(kv_tokens=40_000)
    given = {"budget": Budget(ticks=4000), "inject": said, "control": runs.append, **given}
    result = engine.run(plan, "Make tea.", **given)
    seen = {worker.name: engine.tokenizer.decode(worker.view.ids) for worker in runs[0].workers}
    return result, seen


def decided(result: Result) -> list[str]:
    return [str(dict(e)["answer"]) for e in result.trace.events if e["event"] == "note" and e["kind"] == "decided"]


def test_an_agent_begins_with_a_skill_by_hand(folder: str) -> None:
    result, seen = work(programs.agent, {"Alice": [USE, "Done."]}, skills=[folder], use=["TEA"])
    assert result.answer == "Done."
    text = seen["Alice"]
    assert text.count("Use hot water.") == 1
    assert "Grind it." not in text
    assert text.index("Use hot water.") < text.index("Make tea."), "it has read the skill before the task"
    assert "already in your context" in text
    again, _ = work(programs.agent, {"Alice": [USE, "Done."]}, skills=["gone"], use=["tea"], replay=result.trace.events)
    assert (again.differences, again.answer) == ([], "Done.")
    with pytest.raises(BadRequest, match="did you mean tea"):
        work(programs.agent, {}, skills=[folder], use=["tae"])


def test_an_agent_begins_with_the_skill_that_a_decision_picks(folder: str) -> None:
    result, seen = work(programs.agent, {"Alice": ["Done."]}, skills=[folder], decide=True)
    (picked,) = decided(result)
    bodies = {"tea": "Use hot water.", "coffee": "Grind it."}
    assert picked in (*bodies, NONE)
    assert [name for name, body in bodies.items() if body in seen["Alice"]] == ([picked] if picked != NONE else [])
    again, _ = work(programs.agent, {"Alice": ["Done."]}, skills=["gone"], decide=True, replay=result.trace.events)
    assert (again.differences, again.answer) == ([], "Done.")
    result, seen = work(programs.agent, {"Alice": ["Done."]}, skills=[folder], use=["tea"], decide=True)
    assert decided(result)[0] in ("coffee", NONE), "what is on already is not picked"


@pytest.mark.parametrize("channel", ["cache", "text"])
def test_a_crew_file_says_what_a_worker_begins_with(folder: str, channel: str) -> None:
    lines = {"Ann": ['{"t": "x"}'], "Ben": ['{"t": "y"}']}
    crew = f"channel: {channel}\n{CREW % '[tea]'}"
    result, seen = work(programs.crew, lines, crew=crew, skills=[folder])
    assert "Use hot water." in seen["Ann"]
    assert "Grind it." not in seen["Ann"]
    assert "Use hot water." not in seen["Ben"]
    again, _ = work(programs.crew, lines, crew=crew, skills=["gone"], replay=result.trace.events)
    assert again.differences == []
    result, seen = work(programs.crew, lines, crew=f"channel: {channel}\n{CREW % 'decide'}", skills=[folder])
    (picked,) = decided(result)
    assert ("Use hot water." in seen["Ann"]) == (picked == "tea")
    assert ("Grind it." in seen["Ann"]) == (picked == "coffee")


def test_what_a_crew_file_may_not_say() -> None:
    with pytest.raises(BadRequest, match=r"line 3.*no skill 'tee'; did you mean tea"):
        read_crew(CREW % "[tee]")
    with pytest.raises(BadRequest, match="Ann has no skills"):
        read_crew((CREW % "[tea]").replace("skills: [tea, coffee], ", ""))


def test_the_command(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["agent", "x", "--model", "smollm2-135m"]
    assert main([*words, "--use", "tea"]) == 2
    assert "--skills" in capsys.readouterr().err
    assert main([*words, "--decide"]) == 2
    assert main([*words, "--skills", folder, "--use", "tae"]) == 2
    assert "did you mean tea" in capsys.readouterr().err
    assert main(["programs", "agent", "--json"]) == 0
    assert '"decide"' in json.dumps(json.loads(capsys.readouterr().out))
