"""What a Hogwild! team is told, in both wordings, and what its workers may write.

Workers are scripted. Covers where what is told stands, with a chat template and without, what is banned, and answers
that nobody is asked for. Not covered: what models make of it (docs/hogwild.md).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import toy_engine
from kvorum import Budget, Result, Run, Span, programs
from kvorum.harness.answers import BOXED
from kvorum.programs.hogwild import prompts
from scripted_workers import solve
from test_templates import CHATML

HTML = "<ul>\n<li>**One** and <b>two</b></li>\n</ul>\n\n## Two.\n\n**Alice [1]:** <...>\n"


def team(*said: str, decoded: int = 900, **options: Any) -> tuple[Result, Run]:
    names = ["Alice", "Bob", "Carol"][: len(said)]
    lines = {name: [words] for name, words in zip(names, said, strict=True)}
    return solve(programs.hogwild, "Go.", lines, workers=names, budget=Budget(decoded=decoded), **options)


def seen(run: Run, at: int = 0) -> str:
    """What a worker sees, as text."""
    return "".join(run.read(item.block.ids) for item in run.workers[at].view.items if isinstance(item, Span))


@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
def test_html_and_markdown_can_be_written_and_are_the_answer(layout: str) -> None:
    """Nothing is banned, and the team's own marks are not among what is written."""
    result, run = team(HTML, "x" * 400, answer="text", layout=layout)
    assert (result.answer, result.outcome, result.by) == (HTML.strip(), "answered", "Alice")
    assert run.workers[0].sampling.banned == ()


def test_the_published_rules_ban_what_their_marks_begin_with() -> None:
    _, run = team("Well.", "Yes.", rules="published", answer="text", decoded=2)
    banned = {chr(token) for token in run.workers[0].sampling.banned}
    assert banned == {"<"}, "of single characters; ## and ** are two"
    _, run = team("Well.", "Yes.", rules="published", answer="text", decoded=2, suppress_markup=False)
    assert run.workers[0].sampling.banned == ()


def test_short_rules_are_the_users_words_and_the_others_notes() -> None:
    _, run = team("Well.", "Yes", "No", answer="text", decoded=3)
    notes = "Notes of others who work on this at the same time:"
    assert seen(run) == f"Go.\n\n{notes}\n\n\nY\n\n\nN\n\nW"
    assert seen(run, 2) == f"Go.\n\n{notes}\n\n\nW\n\n\nY\n\nN"
    alone, run = team("Well.", answer="text")
    assert seen(run).startswith("Go.\n\nNotes:")
    assert alone.answer == "Well."


def test_with_a_chat_template_a_worker_writes_the_assistants_words() -> None:
    made = toy_engine.fake()
    made.tokenizer.chat_template = CHATML
    held: list[Run] = []
    made.run(programs.hogwild, "Go.", workers=2, budget=Budget(decoded=6), control=held.append, answer="text")
    (run,) = held
    told = made.tokenizer.decode([token for block in run.workers[0].view.blocks for token in block.ids])
    before, behind = run.state.prompt("")["around"]
    assert told.startswith(f"{before}Go.\n\nNotes of others")
    own = run.workers[0].view.own
    assert own is not None
    assert told.endswith(behind + made.tokenizer.decode(own.ids[1:]))
    assert told.count("<|im_start|>assistant") == 1
    assert len(own) > 2


def test_published_rules_name_their_sections() -> None:
    _, run = team("Well.", "Yes.", answer="text", decoded=2, rules="published")
    for words in (
        prompts.PAST,
        prompts.OTHERS,
        prompts.OWN,
        prompts.UNFINISHED,
        "I suggest that we split the work like this:W",
    ):
        assert words in seen(run)


@pytest.mark.forward
@pytest.mark.parametrize("final", ["cache", "reencode"])
@pytest.mark.parametrize("ends", [True, False])
def test_a_boxed_answer_is_asked_for_in_the_assistants_words(final: str, ends: bool) -> None:
    made = toy_engine.engine()
    made.tokenizer.chat_template = CHATML
    held: list[Run] = []

    def control(run: Run) -> None:
        held.append(run)
        for worker in run.workers if ends else ():

            def end(logits: Tensor, written: list[int] = worker.ids) -> Tensor | None:
                mask = torch.zeros(len(logits), dtype=torch.bool)
                mask[made.tokenizer.eos_token_id] = True
                return None if written else mask

            worker.allow = end

    options: dict[str, Any] = {"budget": Budget(ticks=12), "final": final, "final_tokens": 2}
    result = made.run(programs.hogwild, "Go.", workers=2, control=control, **options)
    assert (result.outcome, result.spent) == ("forced", None if ends else "ticks")
    told = made.tokenizer.decode([token for block in held[0].workers[-1].view.blocks for token in block.ids])
    assert told.index("<|im_start|>assistant") < told.index(BOXED.demand.strip())
    assert told.count("<|im_start|>assistant") == 1
