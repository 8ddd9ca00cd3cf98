"""``ask``: answers are those of one question at a time, in any number of rows; what is shared is encoded once; budgets,
full caches, long questions and bad input.

The toy has random weights: what counts here is who sees what. What real models answer is in ``docs/ask.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from kvorum import Budget, Engine, Sampling
from kvorum.errors import BadRequest, OutOfPages
from kvorum.harness.asked import Asked
from kvorum.harness.documents import Document
from kvorum.harness.shared_text import document_texts
from kvorum.programs.ask.prompts import RULES, question_text
from kvorum.runs.program import find
from kvorum.store.events import note_data
from kvorum.store.kept_blocks import KeptBlocks

TEXT = "The mill of Arden was built in 1804. It burned down in 1911, and Ada Finch built it anew. " * 2
QUESTIONS = ["Who built the mill?", "When did it burn down?", "Where is it?", "Who built it anew?", "Why?"]


def texts(asked: Asked) -> list[str | None]:
    return [answer.text for answer in asked.answers]


def ask(engine: Engine, documents: Any = TEXT, questions: Any = tuple(QUESTIONS), **options: Any) -> Asked:
    return engine.ask(documents, questions, **{"tokens": 12, **options})


@pytest.mark.forward
def test_answers_are_those_of_one_question_at_a_time() -> None:
    engine = toy_engine.engine()
    alone = [texts(ask(engine, questions=question))[0] for question in QUESTIONS]
    assert len(set(alone)) > 1
    for rows in (None, 1, 2, 3):
        assert texts(ask(engine, rows=rows)) == alone
    again = list(reversed(QUESTIONS))
    assert texts(ask(engine, questions=again, rows=2)) == alone[::-1]


def test_an_answer_is_the_plain_forwards() -> None:
    """Greedy, token for token, over document and question as one causal sequence."""
    engine = toy_engine.engine(torch.float64)
    llama = toy_engine.llama(engine)
    (words,) = document_texts({"text": TEXT}, {}).values()
    prompt = f"{words}{question_text(QUESTIONS[0], RULES)}\n\n"
    ids = list(engine.tokenizer(prompt).input_ids)
    said = []
    for _ in range(12):
        token = int(toy_engine.dense(llama, ids, toy_engine.causal(len(ids)))[-1].argmax())
        if token in engine.ends:
            break
        ids.append(token)
        said.append(token)
    assert texts(ask(engine))[0] == (engine.tokenizer.decode(said).strip() or None)


@pytest.mark.forward
def test_what_is_shared_is_encoded_once() -> None:
    engine = toy_engine.engine()
    program = find("ask")
    result = engine.run(
        program, "go", documents={"a": TEXT}, questions=QUESTIONS, tokens=4, budget=Budget(), sampling=Sampling()
    )
    (words,) = document_texts({"a": TEXT}, {}).values()
    rest = sum(len(engine.tokenizer(f"{question}\n\n").input_ids) for question in QUESTIONS)
    once = sum(len(engine.tokenizer(part).input_ids) for part in (words, question_text("", RULES)))
    assert result.ledger.prefill <= once + rest
    seen = [event for event in result.trace.events if event["event"] == "view" and event["items"]]
    shared = {tuple(item[3] for item in event["items"][:2]) for event in seen}
    assert len(shared) == 1  # the document's and the beginning's block, the same for all
    assert result.workers[0].name == "q1"
    assert [worker.name for worker in result.workers] == [f"q{at}" for at in range(1, 6)]


def test_rows_are_freed_for_those_that_wait() -> None:
    """40 questions in a cache that holds two rows at a time."""
    engine = toy_engine.fake(kv_tokens=480)
    wide = toy_engine.fake()
    questions = [f"Question number {at}?" for at in range(40)]
    found = ask(engine, questions=questions)
    assert texts(found) == texts(ask(wide, questions=questions))
    assert engine.pool.free == engine.pool.pages


def test_a_question_that_does_not_fit_is_refused_with_the_numbers() -> None:
    engine = toy_engine.fake(kv_tokens=480)
    with pytest.raises(BadRequest, match=r"^The text takes \d+ tokens, and \d+ are needed behind it: more"):
        ask(engine, questions=["x" * 400])
    with pytest.raises(BadRequest, match="more than the 300 tokens that this model can read"):
        ask(toy_engine.fake(max_positions=300), documents=TEXT * 4)
    held = engine.block()
    held.reserve(140)
    with pytest.raises((OutOfPages, BadRequest), match="free"):
        ask(engine, questions=["x" * 100])
    assert engine.pool.pages - engine.pool.free == len(held.table)


def test_long_questions_go_in_chunks() -> None:
    engine = toy_engine.fake(prefill_chunk=16)
    questions = ["A question " + "of many words " * 30, "Short?", "A question " + "of other words " * 20]
    assert texts(ask(engine, questions=questions)) == texts(ask(toy_engine.fake(), questions=questions))
    for question in questions:
        assert texts(ask(engine, questions=question)) == texts(ask(toy_engine.fake(), questions=question))


def test_thousands_of_questions_go_in_waves() -> None:
    found = ask(toy_engine.fake(kv_tokens=65536), questions=[f"{at}?" for at in range(2_000)], tokens=1, rows=64)
    assert len(found.answers) == 2_000
    assert {answer.finish for answer in found.answers} <= {"length", "end"}


def test_the_budget_is_kept_and_what_was_written_is_marked() -> None:
    engine = toy_engine.fake()
    options: dict[str, Any] = {"documents": {"a": TEXT}, "questions": QUESTIONS, "tokens": 12, "workers": 2}
    whole = engine.run(find("ask"), "go", **options, budget=Budget())
    for ticks in range(1, whole.ledger.ticks + 1):
        result = engine.run(
            find("ask"),
            "go",
            documents={"a": TEXT},
            questions=QUESTIONS,
            tokens=12,
            workers=2,
            budget=Budget(ticks=ticks),
        )
        assert result.ledger.ticks <= ticks
        if result.product is None:
            continue
        for answer, other in zip(result.product.answers, whole.product.answers, strict=True):
            if answer.finish in ("end", "length"):
                assert answer.text == other.text
            elif answer.finish == "cut":
                assert (other.text or "").startswith(answer.text or "")
            else:
                assert answer.text is None
    assert engine.pool.free == engine.pool.pages


def test_several_documents_and_remarks_are_told() -> None:
    found = document_texts({"a.txt": "one", "b.txt": "two\n\n"}, {"b.txt": "page 2 without text that can be read"})
    assert found == {
        "a.txt": "Document: a.txt\n\none\n\n",
        "b.txt": "Document: b.txt\n\ntwo\n\n(Missing in this text: page 2 without text that can be read.)\n\n",
    }


def test_documents_come_in_many_forms(tmp_path: Path) -> None:
    engine = toy_engine.fake()
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    right = texts(ask(engine))
    forms: list[Any] = [path, [path], Document("a", TEXT), {"b": TEXT}]
    for form in forms:
        assert texts(ask(engine, documents=form)) == right
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.txt").write_text("other")
    two = ask(engine, documents=[path, tmp_path / "x" / "a.txt"])
    assert len(two.answers) == 5
    with pytest.raises(BadRequest, match="There is no file"):
        ask(engine, documents=Path("gone.txt"))


@pytest.mark.forward
def test_kept_documents_answer_alike(tmp_path: Path) -> None:
    kept = KeptBlocks(tmp_path)
    first = ask(toy_engine.engine(), kept=kept)
    second = ask(toy_engine.engine(), questions=QUESTIONS[:2], kept=kept)
    assert (first.loaded, second.loaded) == (0, first.tokens)
    assert texts(second) == texts(first)[:2] == texts(ask(toy_engine.engine()))[:2]


def test_nothing_to_ask_is_refused() -> None:
    engine = toy_engine.fake()
    with pytest.raises(BadRequest, match="There is no question"):
        ask(engine, questions=[])
    with pytest.raises(BadRequest, match="Question 2 is empty"):
        ask(engine, questions=["Who?", " "])
    with pytest.raises(BadRequest, match="The document text is empty"):
        ask(engine, documents=" \n")
    with pytest.raises(BadRequest, match="tokens"):
        ask(engine, tokens=0)
    with pytest.raises(BadRequest, match="100 workers are not possible"):
        ask(engine, questions=["?"] * 200, rows=100)


def test_without_documents_the_model_is_asked_alone() -> None:
    engine = toy_engine.engine(torch.float64)
    found = engine.run(find("ask"), "Who built the mill?", tokens=8, budget=Budget(), sampling=Sampling())
    ids = engine.tokenizer("Who built the mill?\n\n").input_ids
    for _ in range(8):
        ids.append(int(toy_engine.dense(toy_engine.llama(engine), ids, toy_engine.causal(len(ids)))[-1].argmax()))
    assert found.workers[0].ids == ids[-8:]
    assert found.answer == found.product.answers[0].text == (engine.tokenizer.decode(ids[-8:]).strip() or None)


def test_a_run_replays_and_tells_its_questions() -> None:
    engine = toy_engine.fake()
    options: dict[str, Any] = {"documents": {"a": TEXT}, "questions": QUESTIONS, "tokens": 6, "workers": 2}
    result = engine.run(find("ask"), "go", budget=Budget(), **options)
    again = engine.run(find("ask"), "go", budget=Budget(), replay=result.trace.events, **options)
    assert again.differences == []
    assert texts(again.product) == texts(result.product)
    told = [note_data(e)["text"] for e in result.trace.events if e["event"] == "note" and e["kind"] == "question"]
    assert told == QUESTIONS


@pytest.mark.forward
@torch.no_grad()
def test_draws_belong_to_the_question() -> None:
    """With a temperature too, the number of rows changes no answer."""
    engine = toy_engine.engine()
    hot = Sampling(temperature=0.8, seed=3)
    assert texts(ask(engine, sampling=hot, rows=1)) == texts(ask(engine, sampling=hot, rows=4))
