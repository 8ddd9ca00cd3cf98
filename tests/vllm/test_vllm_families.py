"""Every family of the local backend's list on vLLM's workers: exact over views, or refused by name.

The table in docs/scaling.md is made here: `KVORUM_WRITE_FAMILIES=1` writes it, else each family must do what its row
says. A small program (A sees B, two workers that see each other, a gap, a part of a block, a move, all longer than the
families' windows) is played on the local backend and on vLLM's, every logit and hidden state compared; where the local
backend refuses a family that vLLM can do, transformers' plain forward is asked. One process: how a model is cut is
covered by ``test_vllm_programs``. vLLM's kernels for experts on CPUs want sizes that divide by 32, so families with
experts are a little larger here than elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from spread_engines import MARKS, workers

import families
from kvorum import Engine, Gap, Row, Span, View
from kvorum.errors import KvorumError, UnsupportedModel
from toy_engine import tokenizer

pytestmark = MARKS
DOCS = Path(__file__).parents[2] / "docs" / "scaling.md"
TABLE = re.compile(r"(<!-- families: made by tests/vllm/test_vllm_families.py -->\n)(.*?)(<!-- end -->)", re.S)
WRITE = bool(os.environ.get("KVORUM_WRITE_FAMILIES"))
EXACT = "exact"
LIMIT = 1e-4
"""Of the largest logit."""
LONG = 200
"""Characters of a refusal in the table; vLLM's own may be pages."""
found: dict[str, str] = {}


def told() -> dict[str, str]:
    """What the docs say of each family: "exact", or a sentence."""
    table = TABLE.search(DOCS.read_text(encoding="utf-8"))
    assert table is not None
    said: dict[str, str] = {}
    for line in table[2].splitlines()[2:]:
        _, names, outcome, _ = line.split("|")
        said |= dict.fromkeys((name.strip(" `") for name in names.split(",")), outcome.strip())
    return said


def play(engine: Engine) -> list[torch.Tensor]:
    """All logits and last hidden states of the program."""
    ids, out = families.random_ids(80, 5).tolist(), []
    p, a, b = (engine.block(name) for name in "pab")
    at = 0
    views = {"p": View(p), "a": View(p, b, a)}
    for counts in ({"p": 12}, {"a": 3, "b": 2}, {"b": 1, "a": 1}, {"a": 2, "p": 1, "b": 4}, {"a": 9, "b": 1}):
        rows = []
        if len(p):
            views["b"] = View(Span(p, 1, 9), Gap(2), a, b)
        for name, count in counts.items():
            rows.append(Row(views[name], ids=ids[at : at + count]))
            at += count
        done = engine.forward(rows, every=True, hidden=True)
        assert done.every is not None
        assert done.hidden is not None
        out += [*done.every, *done.hidden]
    kept = engine.block("kept")
    engine.compact([Span(b, 2, 6), Span(p, 0, 5)], kept)
    last = engine.forward([Row(View(kept, a, engine.block()), ids=ids[at : at + 4])], every=True)
    assert last.every is not None
    return [*out, *last.every]


def larger(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a family; with experts, in sizes that divide by 32."""
    if not any("experts" in name for name in options) and kind not in ("granitemoe", "phimoe"):
        return options
    sizes = {"hidden_size": 96, "intermediate_size": 64}
    sizes |= {name: 64 for name in options if name in ("moe_intermediate_size", "shared_expert_intermediate_size")}
    return {**options, **sizes}


def ours(folder: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What the local backend computes, or transformers alone. Leaves the model in ``folder``."""
    table = families.ACCEPTED if family in families.ACCEPTED else families.REFUSED
    kind, options, *why = table[family]
    monkeypatch.setitem(table, family, (kind, larger(kind, options), *why))
    model = families.build(family)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    try:
        engine = Engine(model, kv_tokens=512, page_size=4, attention="reference")
    except KvorumError:  # vLLM's files may do for one that transformers' do not, so a plain forward is asked
        with torch.no_grad():
            return [model(input_ids=families.random_ids(24, 3)[None], use_cache=False).logits[0]]
    return play(engine)


def plain(engine: Engine) -> list[torch.Tensor]:
    """All logits of a text in two blocks, the second in turns: those of a plain forward."""
    ids, (b, a) = families.random_ids(24, 3).tolist(), (engine.block(name) for name in "ba")
    parts = [engine.forward([Row(View(b), ids=ids[:11])], every=True)]
    parts += [engine.forward([Row(View(b, a), ids=ids[lo:hi])], every=True) for lo, hi in ((11, 15), (15, 24))]
    return [torch.cat([part.every[0] for part in parts if part.every is not None])]


@pytest.fixture
def one_process() -> Iterator[None]:
    """vLLM's groups of processes are made anew for each model: those of one without experts do not do for one with."""
    yield
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def outcome(folder: Path, wanted: list[torch.Tensor]) -> str:
    """What vLLM's backend makes of a model."""
    try:
        engine = Engine.load(folder, backend="vllm", executor="uni", dtype="float32", kv_tokens=512, page_size=4)
    except KvorumError as error:
        said = re.sub(r"\b\w+For(CausalLM|ConditionalGeneration)\b", "it", str(error).replace(str(folder), "it"))
        said = " ".join(said.replace("|", "/").split())
        return said if len(said) <= LONG else said[:LONG].rpartition(" ")[0] + " …"
    try:
        there = play(engine) if len(wanted) > 1 else plain(engine)
    finally:
        engine.backend.close()
    worst = max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(there, wanted, strict=True))
    return EXACT if worst < LIMIT else f"differs by {worst:.0e} of the largest"


@pytest.mark.parametrize(
    ("family", "degrees", "why"),
    [
        ("stablelm", (2, 1), "do not say how models of type stablelm are cut by their heads"),
        ("gemma4-shared", (1, 2), "must be on one stage; take pipeline_parallel=1"),
    ],
)
def test_what_cannot_be_cut_is_refused_before_anything_starts(
    family: str, degrees: tuple[int, int], why: str, tmp_path: Path
) -> None:
    """Before models of these types are loaded in this process: vLLM makes transformers' classes its own there."""
    families.build(family).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match=why):
        Engine.load(tmp_path, backend="vllm", tensor_parallel=degrees[0], pipeline_parallel=degrees[1])
    assert workers(os.getpid()) == []


@pytest.mark.parametrize("family", [*families.ACCEPTED, *families.REFUSED])
def test_exact_or_refused(family: str, tmp_path: Path, one_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "it"
    wanted = ours(folder, family, monkeypatch)
    seen = found[family] = outcome(folder, wanted)
    if not WRITE:
        assert seen == told()[family]
    assert not seen.startswith("differs")


def test_a_folder_on_both_backends_of_one_process(tmp_path: Path, one_process: None) -> None:
    """Of a model with soft caps, which the local backend compares with transformers' own forward as it loads: there are
    versions of transformers, such as this environment's, whose default attention leaves the caps out."""
    families.build("gemma2").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    options: dict[str, Any] = {"dtype": "float32", "kv_tokens": 512, "page_size": 4}
    there = Engine.load(tmp_path, backend="vllm", executor="uni", **options)
    wanted = play(there)
    there.backend.close()
    here = Engine.load(tmp_path, quantize=None, attention="reference", **options)
    assert all(float((x - y).abs().max() / y.abs().max()) < LIMIT for x, y in zip(play(here), wanted, strict=True))
    assert here.backend.fingerprint == there.backend.fingerprint


def test_the_table() -> None:
    """Last: every family has its row; with KVORUM_WRITE_FAMILIES=1 the table is written."""
    if WRITE:
        every = {**told(), **found}  # a few families may be run by themselves
        rows = {why: [name for name, said in every.items() if said == why] for why in every.values()}
        ordered = sorted(rows.items(), key=lambda row: (row[0] != EXACT, -len(row[1]), row[0]))
        lines = [f"| {', '.join(f'`{name}`' for name in names)} | {why} |" for why, names in ordered]
        table = "\n".join(["| family | on vLLM |", "|---|---|", *lines, ""])
        DOCS.write_text(
            TABLE.sub(lambda old: old[1] + table + old[3], DOCS.read_text(encoding="utf-8")), encoding="utf-8"
        )
    assert set(told()) == {*families.ACCEPTED, *families.REFUSED}
