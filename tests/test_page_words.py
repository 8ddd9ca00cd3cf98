"""Whose words were used: stories with known outcome, told to the page's own code in a real headless Chromium.

Covers copies that were in view and such that were not, too short ones, the problem's words, given words, repetitions,
numbers, names; the mark of a worker that loops; latent steps; code and formulas. Not covered: how the page shows them
(test_page.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser import chromium, desk, model, server, visit

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
    text = "Try:\n```python\nx = **2**\n```\nNow `x` is **two** <b>.\n\\[ x \\] and $$y$$"
    rows = [{"worker": "Ann", "fed": 1, "token": 1, "text": text}]
    ann, _ = visit().evaluate(LATENT, [{"event": "tick", "n": 0, "seconds": 0, "rows": rows}])
    assert ann == [
        ["", "Try:", ""],
        ["code", "```python", ""],
        ["code", "x = **2**", ""],
        ["code", "```", ""],
        ["", "Now x is two <b>.", "code strong"],
        ["", " x  and y", "div code div code"],
    ]
