"""What counts as the answer, and the program ``plain``, which adds nothing to the user's words.

Workers are scripted, but for the comparison with transformers. Covers ``plain`` against the bare template and
``generate``; every kind of answer, whole, cut and missing, in ``plain``, ``solo``, ``vote`` and ``hogwild``; JSON of
all shapes. Not covered: what answers are worth (``test_tasks.py``).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import toy_engine
from kvorum import Budget, Command, Engine, Result, Run, Sampling, Task, programs
from kvorum.engine.text import chat
from kvorum.harness.answers import CODE, JSON, KINDS, TEXT, extract, read
from scripted_workers import engine, solve
from test_templates import CHATML

FENCE = "```"


def words(program: Any, *said: str, ticks: int = 400, answer: str = "text", **options: Any) -> Result:
    """A run whose workers write what is ``said``, each to its end."""
    names = ["Alice", "Bob", "Carol"][: len(said)]
    lines = {name: [text] for name, text in zip(names, said, strict=True)}
    return solve(program, "Go.", lines, workers=names, budget=Budget(ticks=ticks), answer=answer, **options)[0]


# -- plain ---------------------------------------------------------------------------------------------------------


def test_plain_gives_the_bare_templates_ids() -> None:
    made = toy_engine.fake()
    made.tokenizer.chat_template = CHATML
    for prompt in ("What is 2 + 2?", "  Blanks, \n\n and <|im_start|> marks ", "\\boxed{} ½ 数"):
        result = made.run(programs.plain, prompt, budget=Budget(ticks=3), seed=1)
        (told,) = [event for event in result.trace.events if event["event"] == "prompt"]
        bare = chat(made.tokenizer, [{"role": "user", "content": prompt}])
        assert told["ids"] == bare
        (first, *_) = [event for event in result.trace.events if event["event"] == "tick"]
        assert first["rows"][0]["fed"] == len(bare) == result.ledger.prefill


@pytest.mark.parametrize("prompt", ["Name three rivers of Europe.", "Write a Python function that adds two numbers."])
def test_plain_greedily_is_generate(smollm2: Engine, prompt: str) -> None:
    ids = torch.tensor([chat(smollm2.tokenizer, [{"role": "user", "content": prompt}])])
    model: Any = smollm2.model
    end = smollm2.tokenizer.eos_token_id
    theirs = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=end
    )[0, ids.shape[1] :].tolist()
    result = smollm2.run(programs.plain, prompt, budget=Budget(ticks=24), sampling=Sampling(temperature=0.0))
    assert result.workers[0].ids == theirs
    assert len(theirs) > 8
    ended = theirs[-1] in smollm2.ends
    assert result.outcome == ("answered" if ended else "cut")
    assert result.answer == smollm2.tokenizer.decode(theirs, skip_special_tokens=True).strip()


def test_plain_is_the_default_and_tells_a_private_part() -> None:
    assert programs.DEFAULT == "plain"
    assert programs.REGISTRY[programs.DEFAULT].most_workers == 1
    for private in ({}, {"Alice": "It is 7."}):
        result, run = solve(programs.plain, Task("Which?", private=private), {"Alice": ["7"]})
        told = run.read(run.workers[0].own.ids[: result.ledger.prefill])
        assert told == "Which?\n\n" + "Only you know this: It is 7.\n\n" * bool(private)
        assert result.answer == "7"


# -- whole, cut, missing -------------------------------------------------------------------------------------------

PROGRAM = f"{FENCE}python\nx = 1\n{FENCE}"
VALUE = '{"a": [1, 2]}'
SAID = [
    # kind, what is written, the answer if the text ends there, and if it is cut there
    ("text", "  All of\n\nit. ", "All of\n\nit.", "All of\n\nit."),
    ("text", " \n ", None, None),
    ("boxed", "So \\boxed{7}", "7", "7"),
    ("boxed", "So 7", None, None),
    ("code", f"Here:\n{PROGRAM}\nDone.", "x = 1", "x = 1"),
    ("code", f"{PROGRAM}\nBetter:\n{FENCE}python\ny = (", "x = 1", "x = 1"),
    ("code", f"Here:\n{FENCE}python\ny = (", "y = (", "y = ("),
    ("code", "y = 1", None, None),
    ("json", f"Here:\n{FENCE}json\n{VALUE}\n{FENCE}", VALUE, VALUE),
    ("json", VALUE, VALUE, VALUE),
    ("json", f"It is {VALUE}, I think [sic].", VALUE, VALUE),
    ("json", '{"a": [1, 2', None, None),
    ("json", "none", None, None),
]


@pytest.mark.parametrize(("kind", "said", "whole", "cut"), SAID)
def test_plain_reads_its_answer_from_what_was_written(kind: str, said: str, whole: str | None, cut: str | None) -> None:
    ended = words(programs.plain, said, answer=kind)
    assert (ended.answer, ended.outcome, ended.spent) == (whole, "answered" if whole else "none", None)
    short = words(programs.plain, said + "!" * 50, answer=kind, ticks=len(said))
    assert (short.answer, short.spent) == (cut, "ticks")
    alone = extract(said, KINDS[kind]) is not None
    assert short.outcome == ("none" if cut is None else "answered" if alone else "cut")
    for result in (ended, short):
        assert result.workers[0].text.startswith(said)
        assert result.ledger.ticks <= max(len(said), len(result.workers[0].ids))
        end = result.trace.events[-1]
        assert end["event"] == "end"
        assert (end["outcome"], end["answer"]) == (result.outcome, result.answer)


@pytest.mark.parametrize("program", [programs.solo, programs.vote], ids=lambda program: program.name)
def test_a_text_is_asked_for_in_no_words_of_ours(program: Any) -> None:
    said = ["Yes."] if program is programs.solo else ["Yes.", "No."]
    for kind in ("text", "json"):
        result = words(program, *said, answer=kind)
        (told,) = [event for event in result.trace.events if event["event"] == "prompt"]
        assert ("Think step by step" in bytes(told["ids"]).decode()) == (kind != "text")
        assert result.answer == ("Yes." if kind == "text" else None)
        assert result.ledger.decoded == sum(len(text) for text in said)  # the end is picked and not fed


def test_finished_work_is_not_thrown_away() -> None:
    """Who has finished has the answer, though others write on until the budget ends."""
    voted = words(programs.vote, "x" * 99, VALUE, ticks=50)
    assert (voted.answer, voted.outcome, voted.spent) == (VALUE, "answered", "ticks")
    team = words(programs.hogwild, VALUE, "x" * 99, ticks=50, answer="json", openings=False, suppress_markup=False)
    assert (team.answer, team.outcome, team.by) == (VALUE, "answered", "Alice")
    cut = words(programs.hogwild, "One.", "More and more", ticks=12, openings=False, suppress_markup=False)
    assert (cut.answer, cut.outcome, cut.spent) == ("One.", "answered", None)
    assert cut.ledger.ticks < 12
    cut = words(programs.hogwild, "x" * 60, ticks=30, openings=False, suppress_markup=False)
    assert cut.answer == "x" * len(cut.workers[0].ids)
    assert (cut.outcome, cut.spent) == ("cut", "ticks")


@pytest.mark.forward
def test_who_wants_the_answer_now_gets_what_there_is() -> None:
    def control(run: Run) -> None:
        run.workers[0].allow = lambda logits: torch.arange(len(logits)) == ord("x")
        run.commands.append(Command("answer"))

    result = engine().run(programs.plain, "Go.", control=control, budget=Budget(ticks=40))
    assert (result.answer, result.outcome) == ("x", "cut")


# -- JSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "alone", "found"),
    [
        (f"{FENCE}json\n[1]\n{FENCE}\n{FENCE}\n{{}}\n{FENCE}", "{}", "{}"),
        (f"{FENCE}json\n[1]\n{FENCE}\n{FENCE}json\n[2,\n{FENCE}", "[1]", "[1]"),
        ('"a string"', None, '"a string"'),
        ("12", None, "12"),
        ("NaN", None, None),
        ('{"a": NaN} {"b": 1}', None, '{"b": 1}'),
        ('{"a": {"b": 1}} and {"c"', None, '{"a": {"b": 1}}'),
        ("{'a': 1}", None, None),
        ('{"a": 1,}', None, None),
        ("[" * 5000, None, None),
        ('see [1] {"half', None, "[1]"),
    ],
)
def test_json_that_is_not_valid_is_no_answer(text: str, alone: str | None, found: str | None) -> None:
    assert (extract(text, JSON), read(text, JSON)) == (alone, found)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(_VALUES, st.sampled_from(["", "Here it is:\n", "I had [1] and {x} before. "]))
def test_any_json_value_is_found_behind_any_words(value: Any, before: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict | list) or not before:
        found = read(before + text, JSON)
        assert found is not None
        assert json.loads(found) == value


@given(st.text())
def test_nothing_that_is_written_breaks_the_reading(text: str) -> None:
    for kind in KINDS.values():
        for said in (text, f"{FENCE}json\n{text}", f"{FENCE}\n{text}\n{FENCE}", "\\boxed{" + text):
            found = read(said, kind)
            assert found is None or found in said
            assert kind is not JSON or found is None or json.loads(found) is not NotImplemented
    assert read(text, TEXT) == (text.strip() or None)
    assert read(text.replace("`", ""), CODE) is None
