"""An outline and its sections: what each row sees, how an outline is read, and what the answer is made of.

Covers, by the dense float64 oracle and an account made of the rules alone, every row of sections that see nothing, the
outline, or each other as they write; sections of the published form, whose logits are those of a plain forward over
their own request; sections one after the other, and sections that a program writes; outlines that a grammar holds to a
number of titles; what ends a section; budgets that end outline or sections; what cannot be together. Budgets, nesting
and replay of all programs are tested where all are. Not covered: quality, which is measured.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import toy_engine
from kvorum import Budget, Engine, Result, Run, Sampling, View, programs
from kvorum.errors import BadRequest, UnknownName
from kvorum.programs.outline import prompts
from kvorum.runs.worker import Worker
from kvorum.store.events import note_data
from oracle import Items, widen
from test_compositions import Judge

RANDOM = Sampling(temperature=1.0)
SHORT = Sampling(temperature=1.0, logit_bias={198: 12.0})  # short lines


def solve(engine: Engine, seed: int = 0, ticks: int = 300, **given: Any) -> Result:
    options: dict[str, Any] = {"sections": 3, "tokens": 5, "outline_tokens": 300, "sampling": RANDOM, **given}
    return engine.run(programs.outline, "What is 2+3?", budget=Budget(ticks=ticks), seed=seed, **options)


def script(run: Run, worker: Worker, words: str) -> None:
    """Have a worker write so many words, and end."""
    ids = [*run.encode(words), *list(run.ends)[:1]]

    def allow(logits: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(len(logits), dtype=torch.bool)
        mask[ids[len(worker.ids)]] = True
        return mask

    worker.allow = allow


def sees(shown: str, in_turn: bool) -> Any:
    def of(block: str) -> Items:
        if block in ("prompt", "outline"):
            return [(name, 0, None) for name in ("prompt", "outline")[: 1 + (block == "outline")]]
        before = [] if shown == "none" else [("outline", 0, None)]
        number = int(block.split()[1])
        others = [at for at in (1, 2, 3) if at < number or (at > number and not in_turn)] if shown == "live" else []
        return [("prompt", 0, None), *before, *((f"Section {at}", 0, None) for at in others), (block, 0, None)]

    return of


@pytest.mark.parametrize(
    ("shown", "order"), [("none", "together"), ("outline", "together"), ("live", "together"), ("live", "in_turn")]
)
def test_every_row_sees_what_the_rules_say(shown: str, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(widen(toy_engine.model()), toy_engine.tokenizer(), kv_tokens=8192, page_size=4)
    judge = Judge(engine, monkeypatch, sees(shown, order == "in_turn"))
    whole = engine.executor.run
    result = solve(engine, sees=shown, order=order, least=3, seed=1, tokens=3, sampling=SHORT)
    monkeypatch.setattr(engine.executor, "run", whole)
    assert len(result.workers) == 4
    assert {"prompt", "outline", "Section 1", "Section 2", "Section 3"} == set(judge.names)
    assert judge.error() < 1e-9


def test_published_sections_are_requests_of_their_own() -> None:
    """Each row's probabilities are those of a dense forward over its request, the point's words and what follows."""
    engine = toy_engine.engine(torch.float64)
    held: list[Run] = []

    def control(run: Run) -> None:
        held.append(run)
        script(run, run.workers[0], " add.\n2. Say it\n2. Again\n3.Stop")

    result = solve(engine, form="published", seed=3, control=control)
    outline = "1. add.\n2. Say it\n2. Again\n3.Stop"
    titles = [prompts.Title(1, "add."), prompts.Title(2, "Say it"), prompts.Title(3, "Stop")]
    for title, worker in zip(titles, held[0].workers[1:], strict=True):
        words = prompts.POINT.format(problem="What is 2+3?", outline=outline, number=title.number)
        given = [*held[0].chat(("user", words)), *engine.tokenizer(title.point).input_ids]
        ids = [*given, *worker.ids]
        assert worker.view.ids == ids[: len(worker.view.ids)]
        dense = toy_engine.dense(toy_engine.llama(engine), ids, toy_engine.causal(len(ids)))
        chances = dense[len(given) - 1 : -1].log_softmax(-1)
        found = [float(line[token]) for line, token in zip(chances, worker.ids, strict=True)]
        assert found == pytest.approx(worker.logprobs, abs=1e-6)
    assert result.answer == "\n".join(
        f"{title.point} {worker.text.strip()}".strip() for title, worker in zip(titles, result.workers[1:], strict=True)
    )


def test_in_turn_each_section_reads_those_before_it_and_writes_the_same_outline() -> None:
    together, in_turn = (
        solve(toy_engine.fake(), order=order, sees="live", least=3) for order in ("together", "in_turn")
    )
    assert together.workers[0].ids == in_turn.workers[0].ids
    assert (together.outcome, in_turn.outcome) == ("answered", "answered")
    assert in_turn.ledger.ticks > together.ledger.ticks
    ticks = [event["rows"] for event in in_turn.trace.events if event["event"] == "tick"]
    assert {len(rows) for rows in ticks} == {1}


@pytest.mark.parametrize("shown", ["none", "outline"])
def test_a_section_may_be_a_program(shown: str) -> None:
    params: dict[str, Any] = {"leaf": "vote", "leaf_params": {"workers": 2}, "sees": shown, "least": 2, "sections": 2}
    result = solve(toy_engine.fake(), seed=2, **params)
    names = {row["worker"] for event in result.trace.events if event["event"] == "tick" for row in event["rows"]}
    assert names == {"Outline", *(f"Section {at}/{name}" for at in (1, 2) for name in ("Alice", "Bob"))}
    (note,) = [note_data(e) for e in result.trace.events if e["event"] == "note" and e["kind"] == "outline"]
    assert result.answer is not None
    titles = note["titles"]
    assert isinstance(titles, list)
    assert len(titles) == 2
    assert all(f"## {title}" in result.answer for title in titles)


def test_what_begins_another_section_ends_one() -> None:
    """A heading in a section is neither in the answer nor in its block, where others would read it."""
    held: list[Run] = []

    def control(run: Run) -> None:
        held.append(run)
        add = run.add_worker

        def scripted(name: str) -> Worker:
            worker = add(name)
            script(run, worker, "one\n## 2. more")
            return worker

        run.add_worker = scripted  # type: ignore[method-assign]

    result = solve(toy_engine.fake(), least=2, sections=2, tokens=None, control=control)
    assert result.outcome == "answered"
    engine, first = held[0].engine, held[0].workers[1]
    assert first.text == "one\n## "
    assert engine.tokenizer.decode(first.own.ids).endswith("one\n##")
    assert str(result.answer).count("## ") == 2
    assert str(result.answer).split("\n\n")[1] == "one"


def test_budgets_leave_what_there_is() -> None:
    outline = solve(toy_engine.fake(), ticks=6)
    assert (outline.outcome, len(outline.workers)) == ("cut", 1)
    assert outline.answer == outline.workers[0].text.strip()
    full = solve(toy_engine.fake(), least=3, tokens=12)
    cut = solve(toy_engine.fake(), least=3, ticks=full.ledger.ticks - 6, tokens=12)
    assert (full.outcome, cut.outcome, cut.spent) == ("answered", "cut", "ticks")
    assert str(cut.answer).count("## ") == str(full.answer).count("## ") == 3


@pytest.mark.parametrize(("least", "most"), [(1, 1), (2, 4), (5, 5)])
def test_the_grammar_holds_an_outline_to_its_number_of_titles(least: int, most: int) -> None:
    for seed in (0, 1) if most < 5 else (1, 2):
        options: dict[str, Any] = {
            "least": least,
            "sections": most,
            "outline_tokens": 900,
            "ticks": 900,
            "tokens": 1,
            "sampling": SHORT if seed else RANDOM,
        }
        result = solve(toy_engine.fake(), seed, **options)
        found = prompts.titles(result.workers[0].text, 99)
        assert least <= len(found) <= most
        assert [title.number for title in found] == list(range(1, len(found) + 1))
        assert len(result.workers) == 1 + len(found)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1, max_size=9), max_size=6))
def test_a_written_outline_is_read_as_it_was_meant(words: list[str]) -> None:
    words = [word.strip() for word in words if word.strip()]
    meant = [prompts.Title(at, word) for at, word in enumerate(words, 1) if word.splitlines() == [word]]
    assert prompts.titles("Sure:\n" + "\n".join(title.point for title in meant), 99) == meant


def test_of_points_with_one_number_the_first_counts_as_published() -> None:
    assert [title.point for title in prompts.titles("1. a\n2.b\n1. c\n\n3. d", 2)] == ["1. a", "2. b"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"least": 4, "sections": 3}, "least=4 is more than sections=3"),
        ({"form": "published", "sees": "live"}, "form=published has sees=outline"),
        ({"form": "published", "leaf": "vote"}, "form=published has sees=outline and no leaf"),
        ({"sees": "live", "leaf": "vote"}, "sees=live is for sections that write themselves"),
        ({"leaf": "outlin"}, "There is no program 'outlin'"),
    ],
)
def test_what_cannot_be_together_is_refused(params: dict[str, Any], words: str) -> None:
    with pytest.raises((BadRequest, UnknownName), match=words):
        solve(toy_engine.fake(), **params)


def test_words_in_a_title_that_are_spelled_like_a_special_token_end_nothing() -> None:
    engine = toy_engine.fake()
    held: list[Run] = []

    def control(run: Run) -> None:
        held.append(run)
        worker = run.workers[0]
        spelled = [*engine.tokenizer("1. a ").input_ids, *(engine.tokenizer(c).input_ids[0] for c in "<end>")]
        end = next(iter(engine.ends))

        def allow(logits: torch.Tensor) -> torch.Tensor:
            mask = torch.zeros(len(logits), dtype=torch.bool)
            mask[spelled[len(worker.ids)] if len(worker.ids) < len(spelled) else end] = True
            return mask

        worker.allow = allow

    solve(engine, least=1, sections=1, control=control)
    section = held[0].workers[1]
    assert not set(section.view.ids) & engine.ends
    assert "<end>" in engine.tokenizer.decode(section.view.ids)
    assert section.view != View()
