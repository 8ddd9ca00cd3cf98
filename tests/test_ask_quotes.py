"""``ask`` with quotations and with texts in parts: a quotation is a whole sentence in the document's own characters, at
its place; parts are cut between sentences and no answer of theirs is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import toy_engine
from kvorum import Budget, Run
from kvorum.harness.asked import Asked
from kvorum.harness.documents import Document
from kvorum.harness.passages import Passages, sentences
from kvorum.programs.ask.parts import cut_texts
from kvorum.runs.program import find, program

TEXT = (
    "# Mill\n\nThe mill of Dr. Arden was built in 1804 at 3.5 crowns. It burned\ndown in 1911! Was it\nbuilt anew? "
    "Ada said: \u201cYes.\u201d Then all was well.\n- first item\n- second item\n\n| a | b |\n| 1 | 2 |\nA last line"
)


def pieces(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def test_sentences_are_whole() -> None:
    assert pieces(TEXT) == [
        "# Mill",
        "The mill of Dr. Arden was built in 1804 at 3.5 crowns.",
        "It burned\ndown in 1911!",
        "Was it\nbuilt anew?",
        "Ada said: \u201cYes.\u201d",
        "Then all was well.",
        "- first item",
        "- second item",
        "| a | b |",
        "| 1 | 2 |",
        "A last line",
    ]
    assert pieces("Er kam am 3. Mai 1998. Dann ging er.") == ["Er kam am 3. Mai 1998.", "Dann ging er."]
    assert pieces("It cost 30. Mr. J. Ames paid.\n1. One thing.") == [
        "It cost 30.",
        "Mr. J. Ames paid.",
        "1. One thing.",
    ]


def test_text_without_blanks_has_sentences() -> None:
    """P94: each verbatim quote of Chinese or Japanese text has a start and an end, and text[start:end] equals it."""
    text = "春天来了。花开了！你看见了吗？是的"
    assert pieces(text) == ["春天来了。", "花开了！", "你看见了吗？", "是的"]


@given(st.text(alphabet="ab .!?\n-|#1\u3002\u201d", max_size=60))
def test_sentences_hold_all_that_is_no_blank(text: str) -> None:
    spans = sentences(text)
    assert "".join(text[start:end] for start, end in spans).split() == text.split() or "".join(
        "".join(pieces(text)).split()
    ) == "".join(text.split())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)


def passages(text: str) -> Passages:
    return Passages({"a": (text, 0)}, lambda words: [ord(mark) for mark in words], 0)


def test_a_passage_is_chosen_as_soon_as_only_one_begins_so() -> None:
    made = passages("One fish. One fine day. Two. Two birds.")
    assert made.allowed([]) == [ord("O"), ord("T")]
    start = [ord(mark) for mark in "One fi"]
    assert made.allowed(start) == [ord("n"), ord("s")]
    assert not made.decided(start)
    assert made.decided([*start, ord("s")])
    words, (place,) = made.chosen([*start, ord("s")])
    assert (words, place.start, place.end) == ("One fish.", 0, 9)
    assert made.allowed([ord(mark) for mark in "Two"]) == [ord(" "), ord(".")]


def test_a_passage_that_another_one_begins_with_can_be_chosen() -> None:
    made = passages("- a\n- ab\n")
    assert made.allowed([ord(mark) for mark in "- a"]) == [0, ord("b")]
    assert made.chosen([*map(ord, "- a"), 0])[0] == "- a"


def saying(words: Sequence[str]) -> Any:
    """A control that lets each row answer "x" at once, and choose the passage that begins with its word."""

    def control(run: Run) -> None:
        add = run.add_worker

        def added(name: str) -> Any:
            worker = add(name)
            line = [*run.encode("x"), min(run.ends)]
            want = run.encode(words[int(name[1:].split(".")[0]) - 1])
            kept: list[Any] = [None]

            def allow(logits: Tensor) -> Tensor | None:
                at = len(worker.ids)
                if at < len(line):
                    return torch.arange(len(logits)) == line[at]
                allowed: Tensor = kept[0](logits)
                wanted = want[at - len(line)] if at - len(line) < len(want) else None
                return allowed & (torch.arange(len(logits)) == wanted) if wanted is not None else allowed

            class Scripted(type(worker)):  # type: ignore[misc]
                @property
                def allow(self) -> Any:
                    return allow

                @allow.setter
                def allow(self, value: Any) -> None:
                    kept[0] = value

            worker.__class__ = Scripted
            return worker

        run.add_worker = added  # type: ignore[method-assign]

    return control


def quoted(text: str, words: Sequence[str], **options: Any) -> Asked:
    questions = [f"Question {at}?" for at in range(len(words))]
    result = toy_engine.fake(**options).run(
        find("ask"),
        "go",
        documents={"a": text},
        questions=questions,
        quote=True,
        tokens=4,
        budget=Budget(),
        control=saying(words),
    )
    found: Asked = result.product
    return found


def test_equal_passages_are_told_apart() -> None:
    """P93: spans in order, line 3 and line 9; each span's text equals the quote."""
    text = "Invoice\n\n- Total 40\n\n\n\n\n\n- Total 40\n- Total 50\n"
    found = [answer.quote for answer in quoted(text, ["- Total 4", "- Total 4", "- Total 5"]).answers]
    assert [quote.place for quote in found if quote] == ["line 3", "line 9", "line 10"]
    assert all(quote and text[quote.start : quote.end] == quote.text for quote in found)


def test_a_quotation_has_the_documents_own_characters() -> None:
    """P84: what the document writes with one character for two letters is quoted so, at its place there."""
    text = "First.\nWe agreed on a \ufb01xed fee of 30.\nLast."
    (answer,) = quoted(text, ["We"]).answers
    assert answer.quote is not None
    assert answer.quote.text == "We agreed on a \ufb01xed fee of 30."
    assert text[answer.quote.start : answer.quote.end] == answer.quote.text
    assert answer.quote.place == "line 2"


@pytest.mark.forward
def test_random_weights_quote_the_document_too() -> None:
    engine = toy_engine.engine()
    for document in (Document("a.pdf", TEXT, (0, 60)), Document("b.txt", "春天来了。花开了！你看见了吗？")):
        found = engine.ask(document, ["Who?", "When?", "Where?"], tokens=6, quote=True)
        for answer in found.answers:
            if answer.text is None:
                continue
            assert answer.quote is not None
            quote = answer.quote
            assert document.text[quote.start : quote.end] == quote.text
            assert quote.text in pieces(document.text)
            assert quote.place == document.place(quote.start)


# -- parts ---------------------------------------------------------------------------------------------------------

LONG = " ".join(f"Sentence number {at} says that the value is {at * 7}." for at in range(40))


@program("cutting", "a program that cuts texts")
async def cutting(run: Run, *, room: int = 0, text: str = "") -> str | None:
    run.product = cut_texts(run, {"a": text}, room)
    return "done"


@pytest.mark.parametrize("room", [0, 60, 300])
def test_parts_are_cut_between_sentences(room: int) -> None:
    """P95: a sentence stands whole in one part, wherever the borders are."""
    engine = toy_engine.fake(kv_tokens=1024)
    parts = engine.run(cutting, "go", room=room, text=LONG, budget=Budget()).product
    assert len(parts) > 1
    found = []
    for part in parts:
        ((text, start),) = part.values()
        assert LONG[start : start + len(text)] == text
        assert len(engine.tokenizer(text).input_ids) + room < 1024
        found += pieces(text)
    assert found == pieces(LONG)


def test_a_sentence_that_is_too_long_is_cut() -> None:
    engine = toy_engine.fake(kv_tokens=512)
    parts = engine.run(cutting, "go", text="x" * 3000, budget=Budget()).product
    assert "".join(text for part in parts for text, _ in part.values()) == "x" * 3000


def test_a_text_that_fits_is_not_cut() -> None:
    engine = toy_engine.fake()
    assert len(engine.run(cutting, "go", text=LONG, budget=Budget()).product) == 1
    whole, cut = (engine.ask(LONG, ["Who?", "When?"], tokens=6, split=split) for split in (False, True))
    assert [answer.text for answer in whole.answers] == [answer.text for answer in cut.answers]


def test_questions_are_asked_of_all_parts() -> None:
    engine = toy_engine.fake(kv_tokens=1600)
    result = engine.run(
        find("ask"), "go", documents={"a": LONG}, questions=["Who?", "When?"], split=True, tokens=6, budget=Budget()
    )
    names = [worker.name for worker in result.workers]
    assert {"q1.1", "q2.1", "q1.2", "q2.2"} <= set(names)
    assert {"q1", "q2"} & set(names)
    assert [answer.question for answer in result.product.answers] == ["Who?", "When?"]
    assert all(answer.text for answer in result.product.answers)
    assert engine.pool.free == engine.pool.pages
    again = engine.ask(LONG, ["Who?"], split=True, tokens=6, quote=True)
    quote = again.answers[0].quote
    assert quote is None or LONG[quote.start : quote.end] == quote.text


def test_a_budget_ends_a_split_reading() -> None:
    engine = toy_engine.fake(kv_tokens=1600)
    for ticks in (1, 4, 9, 14, 20):
        result = engine.run(
            find("ask"),
            "go",
            documents={"a": LONG},
            questions=["Who?"],
            split=True,
            tokens=6,
            budget=Budget(ticks=ticks),
        )
        assert result.ledger.ticks <= ticks
