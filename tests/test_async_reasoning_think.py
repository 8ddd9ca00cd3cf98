"""A thinker and a writer on models with a think part, and on those whose template opens it itself.

Covers where the tags stand in what either sees, in both layouts and in notes; that the closing tag ends the thoughts;
and a writer that ends before it has said anything. What they see otherwise: ``test_async_reasoning_dense.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from call_templates import HERMES, tokenizer
from kvorum import Engine, Run, Sampling, View
from kvorum.backends.fake import FakeBackend
from test_async_reasoning import solve
from test_async_reasoning_dense import modes

ASKS = "{{ '<|im_start|>assistant\\n' }}"


def engine(opens: bool, *, added: bool = True) -> Engine:
    """A model without weights with tags for thoughts. ``opens``: its template begins each reply with the first.
    ``added``: each tag is a token."""
    words: Any = tokenizer("hermes")
    words.chat_template = HERMES.replace(ASKS, ASKS + "{{ '<think>\\n' }}") if opens else HERMES
    if added:
        words.add_tokens(["<think>", "</think>"])
    ends = [words.convert_tokens_to_ids("<|im_end|>")]
    return Engine(FakeBackend(len(words), kv_tokens=8192, ends=ends), words)


def shown(engine: Engine, view: View) -> str:
    """What a view shows, as text."""
    text: str = engine.tokenizer.decode(view.ids)
    return text


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize(("layout", "form"), [("one_way", "think"), ("one_way", "auto"), ("mutual", "think")])
def test_thoughts_stand_in_the_think_part_and_the_answer_behind_it(layout: str, form: str, opens: bool) -> None:
    made = engine(opens)
    close = made.tokenizer.convert_tokens_to_ids("</think>")
    held: list[Run] = []
    how = Sampling(temperature=1.0, logit_bias={close: 4.0}, banned=sorted(made.ends))
    result = solve(made, 1, layout=layout, form=form, sampling=how, control=held.append)
    thinker, writer = held[0].workers
    assert thinker.ids[-1] == close, "it ends the thoughts"
    assert close not in thinker.own.ids, "and the writer's own stands behind them"
    told = modes(result)
    assert all("T" in mode for mode in told[: len(thinker.ids)])
    assert set(told[len(thinker.ids) :]) == {"W"}
    text = shown(made, View(*writer.view.items[:-1]))
    _, _, reply = text.rpartition("<|im_start|>assistant\n")
    assert reply.startswith("<think>\n")
    assert reply.endswith("\n</think>\n\n")
    assert (text.count("<think>"), text.count("</think>")) == (1, 1)
    sees = shown(made, thinker.view)
    _, _, reply = sees.rpartition("<|im_start|>assistant\n")
    before, _, thoughts = reply.partition("<think>\n")
    assert sees.count("<think>") == 1
    assert "</think>" not in thoughts
    assert (before.strip() != "") == (layout == "mutual"), "the answer so far stands before the think part"


@pytest.mark.parametrize("opens", [False, True])
def test_notes_are_no_think_part(opens: bool) -> None:
    made = engine(opens)
    held: list[Run] = []
    solve(made, ticks=20, form="notes", think=5, sampling=Sampling(banned=sorted(made.ends)), control=held.append)
    for worker in held[0].workers:
        assert "think>" not in shown(made, View(*worker.view.items[:2])).rpartition("<|im_start|>")[2]


def test_a_writer_that_ends_at_once_is_not_made_to_go_on() -> None:
    """There were no words, and the budget did not end them."""
    made = engine(False)
    held: list[Run] = []
    (end,) = made.ends
    how = Sampling(temperature=1.0, logit_bias={end: 100.0})
    result = solve(made, ticks=40, sampling=how, control=held.append)
    assert (result.answer, result.outcome) == (None, "none")
    assert [worker.ids for worker in result.workers] == [[end], [end]]


@pytest.mark.parametrize("opens", [False, True])
def test_tags_that_are_no_tokens_stand_where_they_belong(opens: bool) -> None:
    made = engine(opens, added=False)
    held: list[Run] = []
    solve(made, 1, form="think", think=6, control=held.append)
    _, writer = held[0].workers
    text = shown(made, View(*writer.view.items[:-1]))
    _, _, reply = text.rpartition("<|im_start|>assistant\n")
    assert reply.startswith("<think>\n")
    assert reply.endswith("\n</think>\n\n")
    assert text.count("<think>") == 1
