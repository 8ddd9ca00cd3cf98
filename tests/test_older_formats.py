"""What was kept by earlier versions is read, replayed and loaded; what a later one wrote is refused by name.

The files in ``older_formats/`` were made by the kvorum of their time (its README has the commits). Covers traces,
stores of runs, blocks, packed weights and converted models.
"""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sqlalchemy import QueuePool
from transformers import AutoModelForCausalLM

from kvorum import Budget, Engine, Row, Sampling, View, programs, versions
from kvorum.errors import BadRequest, BadTrace, BlockMismatch, KvorumError, ModelFileError, OtherVersion
from kvorum.jsontypes import Json
from kvorum.models import cache_folder
from kvorum.models.checksums import record
from kvorum.models.load import load_model
from kvorum.models.packed.layers import load_packed
from kvorum.models.packed.quantize import quantize_model
from kvorum.store.runs import Store
from kvorum.store.traces import read
from kvorum.versions import CONVERSION, PACKED, RUN_STORE, TRACE, Form
from older_formats_model import KEPT, model
from serving import served
from test_templates import CHATML
from toy_engine import tokenizer

FORMS = [form for form in vars(versions).values() if isinstance(form, Form)]
TRACES = [*sorted(KEPT.glob("*.jsonl")), *sorted((KEPT.parents[1] / "docs" / "programs").glob("*.jsonl"))]


def engine(template: str | None = None, **options: Any) -> Engine:
    made = tokenizer()
    made.chat_template = template
    return Engine(model(), made, **{"kv_tokens": 4096, "page_size": 16, "name": "kept", **options})


def rewritten(source: Path, target: Path, drop: str = "", **about: str) -> Path:
    """A copy of a safetensors file, one tensor left out, with other metadata."""
    with safe_open(source, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys() if key != drop}  # noqa: SIM118
        metadata = {**file.metadata(), **about}
    save_file(tensors, target, metadata=metadata)
    return target


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.what)
def test_a_form_reads_from_its_oldest_to_its_newest_version(form: Form) -> None:
    for number in range(form.oldest, form.newest + 1):
        assert form.version(f"{form.mark}{number}", "x") == number
    later = form.newest + 1
    with pytest.raises(form.error, match=f"here/x is a .* of version {later}, .* up to {form.newest}: take the kvorum"):
        form.version(f"{form.mark}{later}", "here/x")
    others: list[Json] = [None, "", True, "x", f"{form.mark}{form.oldest - 1}", f"{form.mark}-1", "other-1", []]
    for other in others:
        with pytest.raises(form.error, match=r"x is not a .* of a version that can be read"):
            form.version(other, "x")


# -- traces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_traces_of_before_are_read(path: Path) -> None:
    events = read(path)
    assert len(events) == len(path.read_text().splitlines())
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "end"


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("trace-1", None),
        ("trace-1-turns", CHATML),
        ("trace-2", None),
        ("trace-2-vote", None),
        ("trace-2-text", CHATML),
        ("trace-2-code", CHATML),
        ("trace-2-solo", CHATML),
        ("trace-3", CHATML),
    ],
)
def test_a_trace_of_before_is_replayed_token_for_token(name: str, template: str | None, tmp_path: Path) -> None:
    """It stays one of its version, with the words and the bans of then; that of version 1 has no prompts."""
    old = read(KEPT / f"{name}.jsonl")
    start = old[0]
    assert start["event"] == "start"
    result = engine(template).run(
        programs.find(start["program"]),
        start["task"]["prompt"],
        workers=start["workers"],
        budget=Budget(**start["budget"]),
        sampling=Sampling(temperature=1.0),
        seed=start["seed"],
        replay=old,
        trace=tmp_path / "again.jsonl",
        **start["params"],  # type: ignore[arg-type]
    )
    again = read(tmp_path / "again.jsonl")
    ticks = [[event for event in events if event["event"] == "tick"] for events in (old, again)]
    assert len(ticks[0]) == len(ticks[1])
    for was, now in zip(*ticks, strict=True):
        assert [(row["worker"], row["fed"], row["token"]) for row in was["rows"]] == [
            (row["worker"], row["fed"], row["token"]) for row in now["rows"]
        ]
    assert [event["event"] for event in again] == [event["event"] for event in old]
    assert again[0]["event"] == "start"
    assert again[0]["format"] == start["format"] == int(name[6])
    assert old[-1]["event"] == "end"
    assert (result.answer, result.outcome) == (old[-1]["answer"], old[-1]["outcome"])


def test_a_later_trace_is_refused(tmp_path: Path) -> None:
    lines = (KEPT / "trace-1.jsonl").read_text().splitlines()
    start = json.loads(lines[0]) | {"format": TRACE.newest + 1}
    path = tmp_path / "later.jsonl"
    path.write_text("\n".join([json.dumps(start), *lines[1:]]))
    with pytest.raises(BadTrace, match=f"later.jsonl is a kvorum trace of version {TRACE.newest + 1}"):
        read(path)
    events = [start, *map(json.loads, lines[1:])]
    with pytest.raises(BadTrace, match="The replay is a kvorum trace of version"):
        engine().run(programs.hogwild, "Count to ten.", workers=2, replay=events)


# -- the store of runs ---------------------------------------------------------------------------------------------


def opened(folder: Path, statement: str, *values: str | int) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "runs.sqlite")) as file, file:
        return file.execute(statement, values).fetchall()


def test_a_run_of_before_goes_on(tmp_path: Path) -> None:
    """The store was left with a finished run and one that had made five ticks of the same."""
    shutil.copy(KEPT / "runs-1.sqlite", tmp_path / "runs.sqlite")
    made = engine()
    ((told,),) = opened(tmp_path, "SELECT DISTINCT fingerprint FROM runs")
    fresh = tmp_path / "fresh"
    with served(made, fresh) as server:
        server.run(budget={"ticks": 1})
    ((now,),) = opened(fresh, "SELECT fingerprint FROM runs")
    # What follows the model's own digest, which another version of transformers changes, is as it was.
    assert now.split(":")[1:] == told.split(":")[1:]
    opened(tmp_path, "UPDATE runs SET fingerprint = ?", now)
    with served(made, tmp_path) as server:
        late, whole = (run["id"] for run in server.http.get("/v1/runs").json()["data"])
        assert server.show(late)["ticks"] == 5
        assert server.post(f"/v1/runs/{late}/resume").status_code == 200
        server.until(late, "finished", "failed")
        rows = [
            [
                [(row["worker"], row["token"]) for row in event["rows"]]
                for event in server.events(run)
                if event["event"] == "tick"
            ]
            for run in (late, whole)
        ]
    assert rows[0][:5] == rows[1][:5]
    assert len(rows[0]) > 5
    ((status,),) = opened(tmp_path, "SELECT status FROM runs WHERE id = ?", late)
    assert status == "finished"


def test_a_later_store_is_refused_and_left(tmp_path: Path) -> None:
    shutil.copy(KEPT / "runs-1.sqlite", tmp_path / "runs.sqlite")
    opened(tmp_path, f"PRAGMA user_version={RUN_STORE.newest + 1}")
    for _ in range(2):  # the lock is free again
        with pytest.raises(BadRequest, match=f"is a store of runs of version {RUN_STORE.newest + 1}.*--store FOLDER"):
            Store(tmp_path)
    gc.collect()  # from 3.13 on, Python warns of a file that was left open
    assert len(opened(tmp_path, "SELECT id FROM runs")) == 2
    opened(tmp_path, "PRAGMA user_version=1")
    Store(tmp_path).close()


def test_the_file_of_a_store_that_nobody_closed_is_closed_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    pool = store.claims._database.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedin() == 1
    del store
    gc.collect()
    assert pool.checkedin() == 0


# -- blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_a_block_of_before_is_loaded(number: int, tmp_path: Path) -> None:
    made = engine()
    fresh = made.block("notes")
    made.forward([Row(View(fresh), ids=list(range(40, 51)))])
    with safe_open(made.save(fresh, tmp_path / "fresh"), framework="pt") as file:
        fingerprint = file.metadata()["fingerprint"]
    old = rewritten(KEPT / f"block-{number}.safetensors", tmp_path / "old", fingerprint=fingerprint)
    block = made.load_block(old)
    assert (block.name, block.ids) == ("notes", list(range(40, 51)))
    want, got = (made.forward([Row(View(first, made.block()), ids=[7, 8])]).logits for first in (fresh, block))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_block_without_checksum_that_lacks_something_is_refused(tmp_path: Path) -> None:
    made = engine()
    with safe_open(made.save(made.block(), tmp_path / "fresh"), framework="pt") as file:
        fingerprint = file.metadata()["fingerprint"]
    part = rewritten(KEPT / "block-1.safetensors", tmp_path / "part", drop="values.1", fingerprint=fingerprint)
    with pytest.raises(BlockMismatch, match="damaged"):
        made.load_block(part)


# -- the cache of models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_packed_weights_of_before_are_loaded(number: int) -> None:
    want = model()
    quantize_model(want)
    with torch.device("meta"):
        got = AutoModelForCausalLM.from_config(want.config).eval()
    load_packed(got, KEPT / f"packed-{number}.safetensors")
    ids = torch.arange(40, 51)[None]
    with torch.no_grad():
        torch.testing.assert_close(got(ids).logits, want(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> cache_folder.ModelFolder:
    """The cache as it was left, with a model that had been loaded once."""
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    shutil.copy(KEPT / "conversion-1" / "tiny.gguf", tmp_path / "tiny.gguf")
    folder = cache_folder.gguf_folder(tmp_path / "tiny.gguf")
    for name in ("hf", "about"):
        shutil.copytree(KEPT / "conversion-1" / name, folder.path / name)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_conversion_of_before_files_were_accounted_for_is_made_again(
    cached: cache_folder.ModelFolder, packed: bool
) -> None:
    source = cached.about if packed else cached.hf
    before = json.loads((source / "config.json").read_text())
    loaded = load_model(cached.gguf, packed=packed)
    assert loaded.source == source
    after = json.loads((source / "config.json").read_text())
    assert {key: before[key] for key in after.keys() & before.keys() - {"eos_token_id", "transformers_version"}} == {
        key: after[key] for key in after.keys() & before.keys() - {"eos_token_id", "transformers_version"}
    }
    assert loaded.model(torch.tensor([[2, 3]])).logits.isfinite().all()
    ends = source.stat().st_ino
    load_model(cached.gguf, packed=packed)
    assert source.stat().st_ino == ends


def refused(folder: cache_folder.ModelFolder, packed: bool, words: str) -> None:
    with pytest.raises(OtherVersion, match=words) as caught:
        load_model(folder.gguf, packed=packed)
    assert isinstance(caught.value, KvorumError)
    assert "KVORUM_HOME" in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_later_conversion_is_refused_and_left(cached: cache_folder.ModelFolder, packed: bool) -> None:
    mark = (cached.about if packed else cached.hf) / "kvorum.json"
    mark.write_text(json.dumps({"version": CONVERSION.newest + 1}))
    refused(cached, packed, f"is a converted model of version {CONVERSION.newest + 1}")
    assert json.loads(mark.read_text())["version"] == CONVERSION.newest + 1


def test_later_packed_weights_are_refused_and_left_and_damaged_ones_named(
    cached: cache_folder.ModelFolder,
) -> None:
    load_model(cached.gguf, packed=True)
    kept = cached.packed / "weights.safetensors"
    rewritten(kept, kept, format=f"kvorum-packed-{PACKED.newest + 1}")
    record(cached.about, kept)
    later = kept.read_bytes()
    refused(cached, True, f"is a file of packed weights of version {PACKED.newest + 1}")
    assert kept.read_bytes() == later
    kept.write_bytes(later[:1000])
    with pytest.raises(ModelFileError, match=r"weights\.safetensors is damaged.*remove"):
        load_model(cached.gguf, packed=True)
    shutil.rmtree(cached.packed)
    load_model(cached.gguf, packed=True)
    assert kept.stat().st_size > 1000
    assert not cached.work.exists()


def test_a_new_conversion_says_its_version(cached: cache_folder.ModelFolder) -> None:
    for folder in (cached.hf, cached.about):
        shutil.rmtree(folder)
    for packed, folder in ((False, cached.hf), (True, cached.about)):
        load_model(cached.gguf, packed=packed)
        mark = json.loads((folder / "kvorum.json").read_text())
        assert mark.keys() == {"version", "accounted", "ignored", "checks-2", "files"}
        assert (mark["version"], mark["accounted"], mark["ignored"]) == (CONVERSION.newest, True, [])
