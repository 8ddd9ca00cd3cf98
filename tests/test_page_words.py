"""Whose words were used: stories with known outcome, told to the page's own code in a real headless Chromium.

Covers copies that were in view and such that were not, too short ones, the problem's words, given words, repetitions,
numbers, names; the mark of a worker that loops; latent steps; code and formulas. Then what happened beside the writing
(calls, what was recalled, decisions), of real runs whose words are put into the workers' mouths. Not covered: how the
page shows a run that goes on (test_page.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from browser import TRACES, chromium, desk, drawn, expect, model, server, slide, visit
from kvorum import Budget, Result
from kvorum.harness.memory.memory import Memory
from kvorum.programs.agent.agent import agent
from kvorum.programs.decide import decide
from kvorum.runs.injection import Injection

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'kvorum[test]'")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")


# -- whose words ------------------------------------------------------------------------------------------------------

STORY = """
async script => {
  const { Story } = await import('/page/story.js');
  const story = new Story();
  story.feed({event: 'start', workers: ['Ann', 'Ben'], task: {prompt: 'the quick brown fox jumps over 85'}});
  const see = script.sees;
  story.feed({event: 'view', worker: 'Ann', items: [...(see ? [['Ben', 0, null, 1, 0]] : []), ['Ann', 0, null, 0, 0]]});
  story.feed({event: 'view', worker: 'Ben', items: [...(see ? [['Ann', 0, null, 0, 0]] : []), ['Ben', 0, null, 1, 0]]});
  let n = 0;
  for (const [worker, text, given] of script.says) {
    for (const piece of text.match(/\\s*\\S+|\\s+$/g))
      story.feed({event: 'tick', n: n++, seconds: n, rows: [
        {worker, fed: 1, ...(given ? {given: piece, text: ''} : {text: piece})}]});
  }
  const marks = [...story.lanes.values()].map(lane => lane.paragraphs.flatMap(p =>
    p.marks.map(m => [m.kind, m.source.name, p.text.slice(m.from, m.to)])));
  return [marks, story.echoes.at(story.now).map(({echo, twin, value, name}) => ({echo, twin, value, name}))];
}
"""
LINE = "seven times six makes forty two as we all know. "
FIVE = "six makes forty two as"
COPY = LINE.strip(" .")
FOX = "the quick brown fox jumps over"


TOLD: list[tuple[list[Any], bool, list[Any]]] = [
    ([["Ann", LINE], ["Ben", LINE]], True, [[], [["echo", "Ann", COPY]]]),
    ([["Ann", LINE], ["Ben", LINE]], False, [[], [["twin", "Ann", COPY]]]),
    ([["Ann", LINE], ["Ben", "So seven times six makes. "]], True, [[], []]),
    (
        [["Ann", LINE], ["Ben", "So six makes forty two as. "]],
        True,
        [[], [["echo", "Ann", "six makes forty two as"]]],
    ),
    ([["Ann", LINE], ["Ann", LINE]], True, [[], []]),
    ([["Ann", LINE], ["Ben", LINE], ["Ben", LINE]], True, [[], [["echo", "Ann", COPY]]]),
    ([["Ann", f"{FOX} it "], ["Ben", f"{FOX} me "]], True, [[], []]),
    ([["Ann", LINE], ["Ben", LINE, True]], True, [[], []]),
    ([["Ann", "It is 391. "], ["Ben", "So 391, 391 it is. "]], True, [[], [["value", "Ann", "391"]]]),
    ([["Ann", "It is 391. "], ["Ben", "So 391 it is. "]], False, [[], []]),
    ([["Ann", "It is 4711. ", True], ["Ben", "So 4711 and 7. "]], True, [[], [["value", "Ann", "4711"]]]),
    ([["Ann", "It is 85. "], ["Ben", "So 85 it is. "]], True, [[], []]),
    ([["Ann", "Ben, benign. "], ["Ben", "Hi Ann! "]], True, [[["name", "Ben", "Ben"]], [["name", "Ann", "Ann"]]]),
]
"""What is said, whether the workers see each other, and the marks that are to be found."""


def test_whose_words_were_used(visit: Callable[..., Any]) -> None:
    page = visit()
    for says, sees, marks in TOLD:
        found, pairs = page.evaluate(STORY, {"says": says, "sees": sees})
        assert found == marks, says
        words = sum(len(text.split()) for lane in marks for kind, _, text in lane if kind in ("echo", "twin"))
        assert sum(pair["echo"] + pair["twin"] for pair in pairs) == words, says
        for sign in ("name", "value"):
            assert sum(pair[sign] for pair in pairs) == sum(kind == sign for lane in marks for kind, _, _ in lane), says


# -- loops ------------------------------------------------------------------------------------------------------------

LOOP = """
async notes => {
  const { Story } = await import('/page/story.js');
  const { Columns } = await import('/page/columns.js');
  const story = new Story(), root = document.createElement('div');
  document.body.append(root);
  story.feed({event: 'start', workers: ['Ann', 'Ben'], task: {prompt: 'x'}});
  for (const note of notes) story.feed({event: 'note', kind: 'loop', worker: 'Ann', ...note});
  const columns = new Columns(root, {});
  columns.render(story, story.now, {live: false});
  const found = [...root.querySelectorAll('.loop')].map(each => each.hidden ? '' : each.firstChild.textContent);
  root.remove();
  return [found, story.moments.map(each => each.text)];
}
"""


def test_a_worker_that_loops_is_marked_until_it_gets_out(visit: Callable[..., Any]) -> None:
    page = visit()
    begun, over = {"since": 90, "period": 7, "ended": False}, {"until": 140}
    looping = "Ann: looping since tick 90"
    assert page.evaluate(LOOP, [begun]) == [["says the same again and again: looping since tick 90", ""], [looping]]
    assert page.evaluate(LOOP, [begun, over]) == [["", ""], [looping, "Ann: loops no more"]]
    assert page.evaluate(LOOP, [{"since": "<b>x"}])[0] == ["", ""]


# -- messages ---------------------------------------------------------------------------------------------------------

MESSAGE = """
async () => {
  const { Story } = await import('/page/story.js');
  const { Columns } = await import('/page/columns.js');
  const story = new Story(), root = document.createElement('div');
  document.body.append(root);
  const columns = new Columns(root, {});
  const shown = moment => {
    columns.render(story, moment, {live: false});
    return [...root.querySelectorAll('.text p')].map(each => each.textContent);
  };
  const note = data => story.feed({event: 'note', worker: 'Ann', ...data});
  story.feed({event: 'start', workers: ['Ann'], task: {prompt: 'x'}});
  note({kind: 'told', text: 'Judge it.'});
  const row = {worker: 'Ann', fed: 1, token: 1, text: '{"a": "<b>x', given: '\\n'};
  story.feed({event: 'tick', n: 0, seconds: 0, rows: [row]});
  const before = story.now;
  note({kind: 'closed', text: '"}'});
  const closed = shown(story.now);
  note({kind: 'post', step: 's', fields: {a: '<b>x', n: 2}});
  const found = [shown(before), closed, shown(story.now), shown(before)];
  root.remove();
  return found;
}
"""


def test_a_message_is_shown_field_by_field_once_it_is_whole(visit: Callable[..., Any]) -> None:
    """And at an earlier moment as it was being written."""
    told = "Judge it."
    before, closed, after, again = visit().evaluate(MESSAGE)
    assert before == again == [told, '{"a": "<b>x']
    assert closed == [told, '{"a": "<b>x"}']
    assert after == [told, "a: <b>x", "n: 2"]


# -- what is no plain text ---------------------------------------------------------------------------------------------

LATENT = """
async events => {
  const { Story } = await import('/page/story.js');
  const { Columns } = await import('/page/columns.js');
  const story = new Story(), root = document.createElement('div');
  document.body.append(root);
  story.feed({event: 'start', workers: ['Ann', 'Ben'], task: {prompt: 'x'}});
  for (const event of events) story.feed(event);
  new Columns(root, {}).render(story, story.now, {live: false});
  const found = [...root.querySelectorAll('.text')].map(each =>
    [...each.children].map(one => [one.className.split(' ').filter(name => ['told', 'code'].includes(name)).join(),
      one.textContent, [...one.querySelectorAll('*')].map(part => part.localName).join(' ')]));
  root.remove();
  return found;
}
"""


def test_who_thinks_without_words_is_shown_with_role_and_steps(visit: Callable[..., Any]) -> None:
    roles = {"event": "note", "kind": "roles", "Ann": "planner", "Ben": "judge"}
    latent = {"event": "note", "kind": "latent", "workers": ["Ann"], "steps": 10}
    ann, ben = visit().evaluate(LATENT, [roles, latent])
    steps = "10 latent steps: thoughts that are no words. Who sees this block reads them."
    assert [text for _, text, _ in ann] == ["Role: planner", steps]
    assert [text for _, text, _ in ben] == ["Role: judge"]


def test_code_emphasis_and_formulas_of_a_worker_are_shown_as_such(visit: Callable[..., Any]) -> None:
    text = "## Try:\n```python\nx = **2**\n```\nNow `x` is **two** <b>.\n\\[ x \\] and $$y$$\n\\[\nz^2\n\\]\nEnd"
    rows = [{"worker": "Ann", "fed": 1, "token": 1, "text": text}]
    ann, _ = visit().evaluate(LATENT, [{"event": "tick", "n": 0, "seconds": 0, "rows": rows}])
    assert ann == [
        ["", "Try:", ""],
        ["code", "```python", ""],
        ["code", "x = **2**", ""],
        ["code", "```", ""],
        ["", "Now x is two <b>.", "code strong"],
        ["", " x  and y", "div code div code"],
        ["", "\\[", ""],
        ["", "z^2", "div code"],
        ["", "\\]", ""],
        ["", "End", ""],
    ]


# -- what happens beside the writing ----------------------------------------------------------------------------------


def look(shelf: str) -> dict[str, Any]:
    """says what lies on a shelf"""
    if shelf == "top":
        raise ValueError("no such <b>shelf</b>")
    return {"apples": 17, "boxes": [{"of": shelf, "weighs": {"kg": 2}}]}


def opened(page: Any, result: Result, path: Path) -> list[str]:
    """Show a run's trace at its end; the acts that it tells, and nowhere JSON."""
    path.write_text("\n".join(map(json.dumps, result.trace.events)))
    page.set_input_files("#file", path)
    expect(page, "#run-facts", re.compile(str(dict(result.trace.events[0])["program"])))
    page.keyboard.press("End")
    drawn(page)
    told = page.locator("#acts > li").all_inner_texts()
    lines = [*told, *page.locator("#remarks li").all_inner_texts()]
    assert not [line for line in lines if '{"' in line or '":' in line]
    return [" ".join(line.split()) for line in told]


@pytest.fixture
def told_and_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """An agent with a memory and a skill that calls a tool twice. Run before a browser's loop is here."""
    monkeypatch.setenv("KVORUM_MEMORY", str(tmp_path / "memory.sqlite"))
    (tmp_path / "skills" / "tea").mkdir(parents=True)
    (tmp_path / "skills" / "tea" / "SKILL.md").write_text("---\nname: tea\ndescription: How tea is made.\n---\nHot.\n")
    Memory(namespace="house").remember("Tea is in the left drawer.")
    calls = [json.dumps({"name": "look", "arguments": {"shelf": shelf}}) for shelf in ("left", "top")]
    script = [*(f"<tool_call>\n{call}\n</tool_call>" for call in calls), "There is tea."]
    said = [Injection("say", "Alice", turn=turn, text=text, end=True) for turn, text in enumerate(script)]
    return toy_engine.fake(kv_tokens=24576).run(
        agent,
        "Where is the tea?",
        budget=Budget(ticks=4000),
        inject=said,
        tools=[look],
        memory="house",
        skills=[str(tmp_path / "skills")],
    )


@pytest.fixture
def decided() -> Result:
    asked = [{"type": "choice", "name": "topic", "instructions": "What is it about?", "choices": ["mill", "ship"]}]
    return toy_engine.fake().run(decide, "The mill was built in 1804.", questions=asked)


def test_calls_memory_and_skills_are_shown_in_words(
    told_and_called: Result, visit: Callable[..., Any], tmp_path: Path
) -> None:
    page = visit()
    recalled, skills, left, top = opened(page, told_and_called, tmp_path / "agent.jsonl")
    assert recalled == "Tick 0, 1 text recalled 1. Tea is in the left drawer."
    assert skills == "Tick 0, 1 skill tea How tea is made."
    assert re.fullmatch(
        r"Tick \d+, Alice called look with shelf left result apples 17 boxes 1\. of left weighs kg 2", left
    )
    assert re.fullmatch(r"Tick \d+, Alice called look \(error\) with shelf top result error: .*<b>shelf</b>", top)
    assert page.locator("#acts b").count() == 0
    slide(page, 0)
    assert page.locator("#acts > li").count() == 0


def test_decisions_are_shown_as_shares_and_ticks_are_one_number(
    decided: Result, visit: Callable[..., Any], tmp_path: Path
) -> None:
    page = visit()
    (line,) = opened(page, decided, tmp_path / "decide.jsonl")
    note: dict[str, Any] = next(dict(event) for event in decided.trace.events if event["event"] == "note")
    shares = sorted(note["probabilities"].items(), key=lambda pair: -pair[1])
    shown = " ".join(f"{name} {100 * share:.1f} %" for name, share in shares)
    assert line == f"Tick 0, topic: {note['answer']} {shown}"
    meters = page.locator("#acts meter").evaluate_all("all => all.map(each => each.value)")
    assert meters == pytest.approx([share for _, share in shares])
    page.set_input_files("#file", TRACES / "relay.jsonl")
    expect(page, "#run-facts", re.compile("relay"))
    page.keyboard.press("End")
    drawn(page)
    assert page.inner_text("#meters .budget span") == "240 + 12 without words of 300 ticks"
    assert page.inner_text("#meters [data-entry=ticks]") == "240 + 12 without words"
    assert page.inner_text("#time-label").startswith("tick 240 of 240,")
