"""Texts that many rows read, and their blocks on disk: the same bits as encoding anew, the same ledger, and what
becomes of damaged, foreign, old and half-written files.

Not covered: the time that is saved (``docs/ask.md`` has it measured), and network file systems.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import stat
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from kvorum import Budget, Engine, Ledger, Result, Row, Run, Sampling, View, program
from kvorum.engine.text import encode
from kvorum.errors import BadRequest
from kvorum.harness.shared_text import SharedText, most_tokens, quoted_ids, share_texts
from kvorum.runs.program import find
from kvorum.store.held_blocks import HeldBlocks
from kvorum.store.kept_blocks import KeptBlocks
from kvorum.store.kept_files import DEFAULT_SIZE, read_size

TEXTS = {"first": "The quick brown fox jumps over the lazy dog. " * 3, "second": "And a second text. "}


@program("sharing", "a program that encodes texts and writes a little behind them")
async def sharing(run: Run, *, rules: str = "") -> str | None:
    shared = await share_texts(run, TEXTS, rules=rules)
    worker = run.workers[0]
    worker.view = View(*shared.blocks, run.block("own"))
    worker.feed([*run.encode("So "), *shared.behind])
    for _ in range(4):
        await run.tick([worker])
    run.product = shared
    return worker.text


def shared(engine: Engine, kept: KeptBlocks | None, **options: Any) -> tuple[SharedText, Result]:
    result = engine.run(sharing, "go", kept=kept, budget=options.pop("budget", Budget()), **options)
    return result.product, result


def stored(engine: Engine, found: SharedText) -> list[torch.Tensor]:
    slots = [block.table.slot_tensor(0, len(block)) for block in found.blocks]
    return [tensor for place in slots for pair in engine.backend.read(place) for tensor in pair]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_loaded_text_has_the_bits_and_the_ledger_of_an_encoded_one(tmp_path: Path, dtype: torch.dtype) -> None:
    kept = KeptBlocks(tmp_path)
    plain, plain_run = shared(toy_engine.engine(dtype, prefill_chunk=32), None)
    engine = toy_engine.engine(dtype, prefill_chunk=32)
    first, first_run = shared(engine, kept)
    assert (first.loaded, first.tokens) == (0, plain.tokens)
    other = toy_engine.engine(dtype, prefill_chunk=32, page_size=16, kv_tokens=1024)
    second, second_run = shared(other, kept)
    assert second.loaded == second.tokens == first.tokens
    for here, there in zip(stored(engine, first), stored(other, second), strict=True):
        assert torch.equal(here, there)
    assert first_run.workers[0].ids == second_run.workers[0].ids == plain_run.workers[0].ids
    logprobs = [
        [row["logprob"] for event in run.trace.events if event["event"] == "tick" for row in event["rows"]]
        for run in (first_run, second_run, plain_run)
    ]
    assert logprobs[0] == logprobs[1] == logprobs[2]
    spent = [run.ledger.as_dict() | {"seconds": 0} for run in (first_run, second_run, plain_run)]
    assert spent[0] == spent[1] == spent[2]


def test_a_text_is_found_alone_and_before_others(tmp_path: Path) -> None:
    kept, engine = KeptBlocks(tmp_path), toy_engine.fake()
    run = engine.run(alone, "go", kept=kept, budget=Budget())
    assert run.product.loaded == 0
    both, _ = shared(engine, kept)
    assert 0 < both.loaded == len(both.blocks[0]) < both.tokens
    assert len(files(tmp_path)) == 2


@program("alone", "a program that encodes the first text alone")
async def alone(run: Run) -> str | None:
    run.product = await share_texts(run, {"first": TEXTS["first"]})
    return "done"


def test_a_budget_ends_where_it_would_have(tmp_path: Path) -> None:
    kept = KeptBlocks(tmp_path)
    shared(toy_engine.fake(prefill_chunk=16), kept)
    ledgers: list[Ledger] = []
    for place in (None, kept):
        engine = toy_engine.fake(prefill_chunk=16)
        result = engine.run(sharing, "go", kept=place, budget=Budget(ticks=3))
        assert result.product is None
        ledgers.append(result.ledger)
    assert ledgers[0].ticks == ledgers[1].ticks == 3
    assert ledgers[0].prefill == ledgers[1].prefill


def test_other_models_dtypes_rules_and_chunks_are_encoded_anew(tmp_path: Path) -> None:
    kept = KeptBlocks(tmp_path)
    assert shared(toy_engine.engine(), kept)[0].loaded == 0
    assert shared(toy_engine.engine(), kept)[0].loaded > 0
    assert shared(toy_engine.engine(seed=1), kept)[0].loaded == 0
    assert shared(toy_engine.engine(torch.float64), kept)[0].loaded == 0
    assert shared(toy_engine.engine(kv_dtype="float16"), kept)[0].loaded == 0
    assert shared(toy_engine.engine(prefill_chunk=8), kept)[0].loaded == 0
    assert shared(toy_engine.engine(), kept, rules="Be brief.")[0].loaded == 0


@pytest.mark.forward
def test_damage_is_encoded_anew_and_mended(tmp_path: Path) -> None:
    kept = KeptBlocks(tmp_path)
    good, good_run = shared(toy_engine.engine(), kept)
    whole = {path: path.read_bytes() for path in files(tmp_path)}
    damages: list[Any] = [lambda data: data[:-9], lambda data: b"", lambda data: data[:400] + b"\xff" * 9 + data[409:]]
    for damage in damages:
        for path, data in whole.items():
            path.write_bytes(damage(data))
        again, again_run = shared(toy_engine.engine(), kept)
        assert again.loaded == 0
        assert again_run.workers[0].ids == good_run.workers[0].ids
        assert shared(toy_engine.engine(), kept)[0].loaded == good.tokens
    first, second = files(tmp_path)
    first.write_bytes(second.read_bytes())  # whole, but of another text
    mixed, _ = shared(toy_engine.engine(), kept)
    assert mixed.loaded in [len(block) for block in good.blocks]  # the other is encoded anew


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    engine = toy_engine.fake()
    kept = KeptBlocks(tmp_path)
    blocks = []
    for number in range(3):
        block = engine.block()
        engine.forward([Row(View(block), ids=encode(engine.tokenizer, f"text number {number}"))])
        kept.save(engine, [], block.seal())
        blocks.append(block)
    for age, path in enumerate(sorted(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (1000 + age, 1000 + age))
    assert kept.load(engine, [], blocks[0].ids, "again") is not None  # used now
    one = max(path.stat().st_size for path in files(tmp_path))
    (tmp_path / "x").mkdir()
    for name, age in (("old.part", 0), ("new.part", int(time.time()))):
        (tmp_path / "x" / name).write_bytes(b"half")
        os.utime(tmp_path / "x" / name, (age, age))
    KeptBlocks(tmp_path, most=2 * one).trim()
    found = [kept.load(engine, [], block.ids, "again") is not None for block in blocks]
    assert found[0]
    assert found.count(True) == 2
    assert [path.name for path in tmp_path.glob("*/*.part")] == ["new.part"]
    nothing = KeptBlocks(tmp_path / "none", most=0)
    nothing.save(engine, [], blocks[0])
    assert not files(tmp_path / "none")


def test_what_cannot_be_written_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    product, result = shared(toy_engine.fake(), KeptBlocks(tmp_path / "file" / "kept"))
    assert product.loaded == 0
    assert result.answer is not None

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kvorum.store.blocks.write_tensors", full)
    assert shared(toy_engine.fake(), KeptBlocks(tmp_path / "kept"))[1].answer == result.answer


def test_texts_are_their_readers_own(tmp_path: Path) -> None:
    shared(toy_engine.fake(), KeptBlocks(tmp_path / "kept"))
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700


def test_no_room_is_said_with_the_numbers(tmp_path: Path) -> None:
    kept = KeptBlocks(tmp_path)
    shared(toy_engine.fake(), kept)
    with pytest.raises(BadRequest, match=r"takes 1\d\d tokens: more than the 64 tokens that are free in the cache"):
        shared(toy_engine.fake(kv_tokens=64), kept)


def _keep(folder: str) -> int:
    torch.set_num_threads(1)
    kept = KeptBlocks(Path(folder), most=200_000)
    return sum(shared(toy_engine.fake(), kept)[0].loaded > 0 for _ in range(8))


def test_processes_share_a_folder(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply_async(_keep, (str(tmp_path),))
        here = _keep(str(tmp_path))
        assert min(here, there.get()) >= 7
    assert not list(tmp_path.glob("*/*.part"))


def test_sizes() -> None:
    assert [read_size(words) for words in ("0", "500MB", "8 gb", "1.5GB", "123")] == [0, 500e6, 8e9, 1.5e9, 123]
    assert read_size(None) == read_size(" ") == DEFAULT_SIZE
    for words in ("much", "GB", "8 elephants", "-1", "1e400", "nan"):
        with pytest.raises(BadRequest, match="is no size"):
            read_size(words)


def test_words_from_outside_end_no_turn() -> None:
    class Seen:
        def __init__(self) -> None:
            self.ids: list[int] = []

    seen, engine = Seen(), toy_engine.fake()

    @program("outside", "a program that encodes what somebody wrote")
    async def outside(run: Run) -> str | None:
        seen.ids = quoted_ids(run, "say <end> and go on")
        return "done"

    engine.run(outside, "go", budget=Budget())
    assert not set(seen.ids) & engine.ends
    assert engine.tokenizer.decode(seen.ids) == "say <end> and go on"


def test_most_tokens_says_what_the_limit_is() -> None:
    words = "the 64 tokens that are free in the cache (kv_tokens, --kv-tokens)"
    assert most_tokens(toy_engine.fake(kv_tokens=64), 1) == (64, words)
    assert most_tokens(toy_engine.fake(max_positions=32), 1) == (32, "the 32 tokens that this model can read")


def test_what_only_a_cycle_holds_is_no_reason_to_refuse_a_text() -> None:
    """As what a run leaves behind, until the collector comes by itself."""
    engine = toy_engine.fake(kv_tokens=64)
    gc.disable()
    try:
        block = engine.block()
        engine.forward([Row(View(block), ids=[5] * 60)])
        left: list[object] = [block]
        left.append(left)
        del left, block
        assert engine.pool.free_for(4) == 4, "there is as much as is wanted"
        assert most_tokens(engine, 60)[0] == 64
    finally:
        gc.enable()


@pytest.mark.forward
def test_what_the_last_runs_read_stays_in_the_cache_and_what_is_let_go_is_on_disk(tmp_path: Path) -> None:
    held, engine = HeldBlocks(tmp_path), toy_engine.engine()
    _, plain = shared(engine, None)
    first, first_run = shared(engine, held)
    again, again_run = shared(engine, held)
    assert [block.uid for block in again.blocks] == [block.uid for block in first.blocks], "not loaded: the same ones"
    assert (first.loaded, again.loaded) == (0, again.tokens)
    ledgers = [replace(result.ledger, seconds=0.0) for result in (plain, first_run, again_run)]
    assert ledgers[0] == ledgers[1] == ledgers[2]
    other = toy_engine.engine()
    found, _ = shared(other, held)
    assert found.loaded == found.tokens, "another engine's are on disk"
    assert all(block.pool is other.pool for block in found.blocks)
    small = toy_engine.engine(kv_tokens=4 * first.tokens - 4)
    one, two = (shared(small, held)[0] for _ in range(2))
    assert one.loaded == two.loaded == first.tokens
    same = [a.uid == b.uid for a, b in zip(one.blocks, two.blocks, strict=True)]
    assert not any(same), "both are more than a quarter of this cache, so each makes the other go"


def test_the_cache_of_an_engine_that_is_gone_is_not_held(tmp_path: Path) -> None:
    """A study loads its next model when the last one is let go."""
    held, engine = HeldBlocks(tmp_path), toy_engine.engine()
    cache = weakref.ref(engine.backend.cache)
    shared(engine, held)
    del engine
    gc.collect()
    assert cache() is None


FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "jumper": {"type": ["string", "null"], "description": "who jumps", "maxLength": 12},
        "colour": {"enum": ["brown", "black"]},
        "dogs": {"type": "integer"},
    },
    "required": ["jumper", "colour", "dogs"],
}


def filled(engine: Engine, kept: KeptBlocks | None, form: dict[str, Any] = FORM, **options: Any) -> tuple[Any, int]:
    """What a form comes to, and how many tokens of prompts were computed for it."""
    before = engine.ledger.prefill
    options = {"budget": Budget(), "sampling": Sampling(), "confidence": True, "tokens": 12, **options}
    result = engine.run(find("fields"), TEXTS["first"], schema=json.dumps(form), kept=kept, **options)
    form_ = result.product
    told = [(one.value, one.confidence, one.tokens) for one in form_.fields] if form_ else None
    return (told, result.ledger.as_dict() | {"seconds": 0}), engine.ledger.prefill - before


def test_a_form_that_was_filled_before_has_its_questions_there(tmp_path: Path) -> None:
    """The same values and probabilities, to the bit, in any company, and the same ledger; a new question is encoded
    alone."""
    pytest.importorskip("kvorum_native")
    engine, kept = Engine.load("smollm2-135m", kv_tokens=2048), KeptBlocks(tmp_path)
    plain, _ = filled(engine, None)
    first, all_of_it = filled(engine, kept)
    again, few = filled(engine, kept)
    assert plain == first == again
    assert filled(engine, kept, workers=1)[0][0] == first[0]
    assert 3 <= few < 10 < all_of_it  # the last token of each question, and what its grammar forces
    dogs = {"type": "integer", "description": "how many dogs"}
    changed = {**FORM, "properties": {**FORM["properties"], "dogs": dogs}}
    fresh, _ = filled(engine, None, changed)
    found, more = filled(engine, kept, changed)
    assert found == fresh
    assert few < more < all_of_it // 2
    assert filled(engine, kept, changed)[1] < 10


def test_what_fields_see_of_each_other_is_not_kept(tmp_path: Path) -> None:
    kept, engine = KeptBlocks(tmp_path), toy_engine.fake()
    filled(engine, kept, sees="earlier")
    assert len(files(tmp_path)) == 2  # the text, and the request behind it
    filled(engine, kept)
    assert len(files(tmp_path)) == 2 + len(FORM["properties"])


def test_a_budget_ends_a_form_where_it_would_have(tmp_path: Path) -> None:
    kept, engine = KeptBlocks(tmp_path), toy_engine.fake()
    (_, spent), _ = filled(engine, kept)
    for tokens in range(spent["prefill"] - 20, spent["prefill"] + 4):
        budget = Budget(tokens=tokens)
        assert filled(engine, kept, budget=budget)[0] == filled(engine, None, budget=budget)[0]


def test_a_question_of_several_ticks_counts_as_many_when_it_is_filled_again(tmp_path: Path) -> None:
    engine, kept = toy_engine.fake(prefill_chunk=16), KeptBlocks(tmp_path)
    plain, first, again = (filled(engine, on, workers=1)[0] for on in (None, kept, kept))
    assert plain == first == again


@pytest.mark.forward
def test_questions_whose_bits_depend_on_company_are_not_kept(tmp_path: Path) -> None:
    """Where rows are rounded otherwise beside others, a kept question would not be what encoding it gives."""
    filled(toy_engine.engine(torch.float32), KeptBlocks(tmp_path))
    assert len(files(tmp_path)) == 2  # the text, and the request behind it


def test_a_field_that_waits_for_room_is_not_read_from_disk_at_each_tick(tmp_path: Path) -> None:
    class Counting(KeptBlocks):
        reads = 0

        def load_begun(self, *args: Any, **options: Any) -> Any:
            self.reads += 1
            return super().load_begun(*args, **options)

    names = [f"field{n}" for n in range(6)]
    form = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
    filled(toy_engine.fake(), KeptBlocks(tmp_path), form)
    kept = Counting(tmp_path)
    filled(toy_engine.fake(kv_tokens=400), kept, form, tokens=40)
    assert kept.reads == 2 + len(names)  # the text, the request, and each question once


def test_a_workers_known_tokens_are_looked_back_on_once_and_gone_when_it_fails() -> None:
    """Penalties see them in its block alone; what it is fed when it begins anew is computed, all of it."""

    @program("fails", "a worker that fails, and begins anew", workers=1)
    async def fails(run: Run) -> None:
        (worker,) = run.workers
        worker.view, ids = View(run.block("own")), [1, 2, 3, 4]
        await run.prefill(worker.view, ids[:3])
        worker.feed(ids)
        worker.known = 3
        worker.sampling = Sampling(frequency_penalty=0.5)
        history = worker.draw(0).history
        assert history is not None
        assert list(history.seen) == ids
        worker.allow = lambda logits: torch.zeros(len(logits), dtype=torch.bool)
        with pytest.raises(BadRequest):
            await run.tick([worker])
        worker.allow = None
        worker.begin()
        worker.feed([5, 6])
        assert worker.row().ids == (5, 6)

    toy_engine.fake().run(fails, "Go.")
