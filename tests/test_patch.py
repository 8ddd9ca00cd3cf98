"""The program `patch`: texts that were each read alone, of which a part is read again in a new place.

Covers, on the toy in float64: all of it read again is a full prefill; what a run's patch makes has the bits of
``Engine.patch``; most=1 is all; kept texts in another order; budgets; and its study with the report. Which keys
and values a patch has is tested in ``test_rereading.py``; budgets, nesting and replay where all programs are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import toy_engine
from kvorum import Budget, Engine, Result, Run, Sampling, View, program, programs
from kvorum.errors import BadRequest
from kvorum.harness.patches import patch as read_again
from kvorum.jsontypes import JsonObject
from kvorum.lab.report.report import write_report
from kvorum.lab.study.run_cells import run_study
from kvorum.lab.study.study import Study
from kvorum.store.kept_blocks import KeptBlocks
from kvorum.tasks import families
from studies_made import STUDIES

TEXTS = {"a": "The cat sat.", "b": "A dog ran off.", "c": "It rained."}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return toy_engine.engine()


def run(engine: Engine, **options: Any) -> Result:
    given = {"documents": TEXTS, "tokens": 5, "compare": True, "sampling": Sampling(), **options}
    return engine.run(programs.patch, "Who sat?", **given)


@pytest.mark.forward
def test_all_read_again_is_a_full_prefill_and_less_is_not(engine: Engine) -> None:
    found = {how: run(engine, reread=how, first=6) for how in ("none", "first", "all")}
    far = {how: result.product.divergence for how, result in found.items()}
    assert abs(far["all"]) < 1e-12 < far["first"]
    assert far["none"] > 1e-12
    assert found["all"].product.same
    assert found["all"].product.again == found["all"].product.moved
    assert found["none"].product.again == 0
    assert found["first"].product.again == 2 * 6
    most = run(engine, reread="most", share=1.0)
    assert most.workers[0].ids == found["all"].workers[0].ids
    assert abs(most.product.divergence) < 1e-12
    half = run(engine, reread="most", share=0.5)
    assert 0 < half.product.again < half.product.moved


def test_what_a_run_reads_again_has_the_bits_of_the_engine(engine: Engine) -> None:
    made: list[list[tuple[torch.Tensor, torch.Tensor]]] = []

    def bits(block: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return engine.backend.read(block.table.slot_tensor(0, len(block)))

    @program("patches", "for a test")
    async def patches(run: Run) -> str:
        text, before = run.block("text"), run.block("before")
        await run.prefill(View(text), [1, 2, 3, 4, 5, 6])
        await run.prefill(View(before), [9, 8, 7])
        patched = await read_again(run, text, View(before), [0, 3, 4])
        assert patched.sealed
        assert patched.ids == text.ids
        made.extend([bits(patched), bits(engine.patch(text, View(before), [0, 3, 4]))])
        return "done"

    ledger = engine.run(patches, "x").ledger
    assert ledger.prefill == 6 + 3 + 3
    for one, other in zip(*made, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.forward
def test_kept_texts_are_found_in_any_order(tmp_path: Path) -> None:
    engine = toy_engine.engine()
    kept = KeptBlocks(tmp_path)
    plain = run(engine, compare=False)
    first = run(engine, compare=False, kept=kept)
    turned = {name: TEXTS[name] for name in ("c", "a", "b")}
    again = run(engine, compare=False, kept=kept, documents=turned)
    assert first.workers[0].ids == plain.workers[0].ids
    assert first.product.loaded == 0
    assert again.product.loaded == first.product.moved + len(
        engine.tokenizer("Document: a\n\nThe cat sat.\n\n").input_ids
    )
    assert again.workers[0].ids == run(engine, compare=False, documents=turned).workers[0].ids
    spent = [replace(result.ledger, seconds=0.0) for result in (first, plain)]
    assert spent[0] == spent[1], "as if it had been encoded"


@pytest.mark.forward
def test_bad_input_and_small_budgets_end_in_one_sentence_or_nothing(engine: Engine) -> None:
    with pytest.raises(BadRequest, match="document b is empty"):
        run(engine, documents={"a": "x", "b": " "})
    with pytest.raises(BadRequest, match="more than the"):
        run(engine, documents={"a": "x" * 9000})
    short = run(engine, budget=Budget(ticks=3))
    assert short.outcome == "none"
    assert short.ledger.ticks <= 3
    cut = run(engine, compare=False, tokens=50, budget=Budget(ticks=12))
    assert cut.outcome in ("cut", "answered")
    assert cut.ledger.ticks <= 12


def test_the_question_of_a_moved_text_is_of_the_second_report_alone() -> None:
    for seed in range(12):
        item = families.make("moved", seed)
        first, second = item.given["patch"]["documents"].values()
        assert item.score(f"The answer is: {item.solution}.").solved
        assert not item.score("The chair.").solved
        assert item.solution in second
        assert not item.score(item.constant).solved
        towns = [paragraph.split(".")[0] for paragraph in second.split("\n\n")[2:-1]]
        assert len(towns) == 2
        assert not any(town in first for town in towns)


@pytest.mark.forward
def test_the_study_runs_and_its_report_shows_what_the_program_measured(tmp_path: Path) -> None:
    asked = {key: getattr(Study.read(STUDIES / "patch.yaml"), key) for key in ("kept", "concurrency", "items")}
    assert asked == {"kept": True, "concurrency": 1, "items": 200}
    told: JsonObject = {
        "name": "patch",
        "models": ["toy"],
        "items": 2,
        "budgets": [2],
        "tasks": [{"family": "moved", "places": 1}],
        "arms": [
            {
                "program": "patch",
                "channels": ["all", "none", "first 8", "most 5%"],
                "params": {"compare": True, "tokens": 2},
                "temperature": 0,
            }
        ],
        "concurrency": 1,
        "kept": True,
    }
    study = Study.of(told)
    run_study(study, tmp_path, lambda name: toy_engine.engine(torch.float32, kv_tokens=16384))
    table = pd.read_csv(tmp_path / "table.csv")
    full = table[table["channel"] == "all"]
    assert len(table) == 8
    assert (full["own: KL"].abs() < 1e-4).all()
    assert (full["own: read again"] == 1).all()
    assert (table["arm"] == "patch/" + table["channel"]).all()
    assert any((tmp_path / "kept").rglob("*.safetensors"))
    text = write_report(study, table, tmp_path, "kvorum study run x")[1].read_text(encoding="utf-8")
    assert "## Measured by the programs themselves" in text
    assert "same answer" in text
    assert "patch/all − patch/none" in text
    assert text.index("patch/none | 0 (") < text.index("patch/all | 1 (")
