"""Memory as a model sees it: blocks that come and go, kept on disk and gone when forgotten; swaps; policies; tools.

Covers: the keys and values of an entry are those of encoding it behind the opening, wherever it stands and from disk
too; what a run pays; what a swap leaves and what encoding again takes away, against one that never saw the old entry;
who may write what; the command. Not covered: the file itself (test_memory_store.py), what a real model answers
(docs/memory.md).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from kvorum import Budget, Engine, Result, Run, View, program
from kvorum.cli import main
from kvorum.errors import NotAllowed, UnknownName, ViewError
from kvorum.harness.memory.blocks import HEADING, entry_block, entry_text, memory_blocks, memory_words
from kvorum.harness.memory.memory import Memory
from kvorum.harness.memory.policy import POLICIES, policy
from kvorum.harness.memory.tools import memory_tools
from kvorum.harness.shared_text import encode, quoted_ids
from kvorum.harness.text_blocks import TextBlocks, encode_again
from kvorum.harness.tools.call import call
from kvorum.kv import Block
from kvorum.store.kept_blocks import KeptBlocks
from kvorum.store.memory.entries import new_entry
from kvorum.store.memory.store import MemoryStore


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(MemoryStore(tmp_path / "m.sqlite"), kept=KeptBlocks(tmp_path / "kept"))


def play(engine: Engine, body: Callable[[Run], Awaitable[Any]], kept: KeptBlocks | None = None) -> Result:
    """``body`` as a program; what it returns is the result's ``product``."""

    @program("body", "what a test does in a run")
    async def function(run: Run) -> str | None:
        run.product = await body(run)
        return "done"

    return engine.run(function, "go", kept=kept, budget=Budget())


def stored(engine: Engine, block: Block) -> list[torch.Tensor]:
    return [tensor for pair in engine.backend.read(block.table.slot_tensor(0, len(block))) for tensor in pair]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


CODES = {"Ann": 4711, "Bob": 4812, "Carol": 9034}


def kept_of(memory: Memory) -> KeptBlocks:
    assert isinstance(memory.kept, KeptBlocks)
    return memory.kept


def test_an_entry_is_encoded_once_and_is_the_same_wherever_it_stands(memory: Memory) -> None:
    """In one run, in a second one from disk, and with no disk at all; the ledger is the same."""
    for text in ("The code is 4711.", "Ann likes tea.", "<end> is no token here"):
        memory.remember(text)

    async def body(run: Run) -> tuple[TextBlocks, list[list[torch.Tensor]], int]:
        texts = await TextBlocks.begin(run)
        blocks = await memory_blocks(texts, memory, memory.recall(), alone=True)
        spent = run.ledger.prefill
        again = await memory_blocks(texts, memory, memory.recall(limit=2), alone=True)
        assert list(again[:1]) == list(blocks[:1])
        assert list(again[2:]) == list(blocks[2:]), "held"
        assert run.ledger.prefill - spent == len(again[1]), "only the line that says what is missing is new"
        plain = run.block("plain")
        await encode(run, View(texts.opening, plain), quoted_ids(run, entry_text(memory.list()[2])))
        assert 259 + 6 not in plain.ids
        assert all(torch.allclose(a, b) for a, b in zip(stored(engine, plain), stored(engine, blocks[3]), strict=True))
        return texts, [stored(engine, block) for block in blocks], run.ledger.prefill

    results = []
    for kept in (kept_of(memory), kept_of(memory), None):
        engine = toy_engine.engine()
        results.append(play(engine, body, kept).product)
    (first, tensors, prefill), (second, others, prefill2), (third, plain, prefill3) = results
    assert first.loaded == 0
    assert second.encoded == 0
    assert second.loaded == first.encoded == third.encoded
    assert prefill == prefill2 == prefill3
    assert all(same(a, b) and same(a, c) for a, b, c in zip(tensors, others, plain, strict=True))


def test_entries_have_read_those_before_them(memory: Memory) -> None:
    """As if all of it were one text; where one changes, those behind it are encoded again and no other."""
    engine = toy_engine.engine()
    first, second, third = (memory.remember(f"The code of {who}'s locker is {code}.") for who, code in CODES.items())

    async def body(run: Run) -> None:
        texts = await TextBlocks.begin(run)
        blocks = await memory_blocks(texts, memory, memory.recall())
        plain = run.block("plain")
        words = [HEADING, *map(entry_text, (first, second, third))]
        ids = [token for text in words for token in quoted_ids(run, text)]
        await encode(run, View(texts.opening, plain), ids)
        one, many = stored(engine, plain), [stored(engine, block) for block in blocks]
        for whole, *pieces in zip(*(tensors[1::2] for tensors in (one, *many)), strict=True):  # values: keys are turned
            assert torch.allclose(whole, torch.cat(pieces, dim=1), atol=1e-5)
        spent = run.ledger.prefill
        assert list(await memory_blocks(texts, memory, memory.recall())) == list(blocks)
        assert run.ledger.prefill == spent, "the same again costs nothing"
        memory.update(second.id, "The code of Bob's locker is 12.")
        changed = await memory_blocks(texts, memory, memory.recall())
        assert list(changed[:2]) == list(blocks[:2])
        assert run.ledger.prefill - spent == sum(map(len, changed[2:]))

    play(engine, body, kept_of(memory))


@pytest.mark.forward
def test_forgetting_takes_the_keys_and_values_of_every_model(memory: Memory) -> None:
    first, other = memory.remember("The code is 4711."), memory.remember("Ann likes tea.")
    second = memory.update(first.id, "The code is 4812.")

    async def body(run: Run) -> None:
        texts = await TextBlocks.begin(run)
        await entry_block(texts, memory, first)
        await memory_blocks(texts, memory, memory.recall())

    for seed in (0, 1):
        play(toy_engine.engine(seed=seed), body, kept_of(memory))

    def files(name: str) -> int:
        return len(list(memory.kept.folder.glob(f"*/{name}-*")))

    assert [files(entry.id) for entry in (first, second, other)] == [2, 2, 2]
    assert {entry.id for entry in memory.forget(second.id)} == {first.id, second.id}
    assert [files(entry.id) for entry in (first, second, other)] == [0, 0, 2]


@pytest.mark.forward
def test_what_is_forgotten_while_it_is_encoded_leaves_nothing(memory: Memory) -> None:
    entry = memory.remember("The code is 4711.")

    async def body(run: Run) -> None:
        texts = await TextBlocks.begin(run)
        memory.store.forget(entry.id)  # as another process would
        await entry_block(texts, memory, entry)

    play(toy_engine.engine(), body, kept_of(memory))
    assert not list(memory.kept.folder.glob(f"*/{entry.id}-*"))


@pytest.mark.forward
def test_the_size_that_is_set_takes_blocks_and_no_text(tmp_path: Path) -> None:
    engine = toy_engine.engine()
    one = 60 * engine.pool.bytes_per_token
    memory = Memory(MemoryStore(tmp_path / "m.sqlite"), kept=KeptBlocks(tmp_path / "kept", most=3 * one))
    for at in range(12):
        memory.remember(f"Entry number {at} is about forty tokens long.")

    async def body(run: Run) -> None:
        await memory_blocks(await TextBlocks.begin(run), memory, memory.recall(limit=12))

    play(engine, body, kept_of(memory))
    left = list(memory.kept.folder.glob("*/*.safetensors"))
    assert 0 < sum(path.stat().st_size for path in left) <= 3 * one
    assert any(memory.list()[-1].id in path.name for path in left), "the newest is there"
    assert len(memory.list()) == 12


@pytest.mark.forward
def test_a_swap_costs_its_own_tokens_and_hides_what_encoding_again_forgets(memory: Memory) -> None:
    """Three views say the same tokens: one never saw the old entry, one hid it, one forgot it."""
    entry = memory.remember("The code is 4711.")
    engine = toy_engine.engine()

    async def body(run: Run) -> None:
        texts = await TextBlocks.begin(run)
        old = await entry_block(texts, memory, entry)
        talk = run.block("talk")
        await encode(run, View(texts.opening, old, talk), run.encode("a talk that read it"))
        view = View(texts.opening, old, talk.seal())
        spent = run.ledger.prefill
        new = await entry_block(texts, memory, memory.update(entry.id, "The code is 4812."))
        hidden = view.swap(old, new)
        assert run.ledger.prefill - spent == len(new)
        assert hidden.ids == [*texts.opening.ids, *new.ids, *talk.ids]
        never = run.block("never")
        await encode(run, View(texts.opening, new, never), talk.ids)
        forgotten, again = await encode_again(run, hidden, len(texts.opening) + len(new), "again")
        assert again == len(talk)
        asked = run.encode(" so the code is")
        logits = []
        for seen in (View(texts.opening, new, never.seal()), hidden, forgotten):
            own = run.block("own")
            await encode(run, View(*seen.fork(len(seen)).items, own), asked)
            assert own.logits is not None
            logits.append(own.logits)
        assert torch.allclose(logits[0], logits[2]), "forgotten: as if it had never been"
        assert not torch.allclose(logits[0], logits[1], atol=1e-3), "hidden: the talk still carries it"
        with pytest.raises(ViewError):
            view.swap(new, old)
        with pytest.raises(ViewError):
            View(talk, own).swap(own, new)

    play(engine, body)


def test_who_may_write_what(memory: Memory) -> None:
    mine = memory.remember("The person's.")
    model = memory.written_by(policy("model"), "Alice")
    its = model.remember("The model's.")
    assert its.source == "model:Alice"
    for does in (lambda: model.update(mine.id, "x"), lambda: model.forget(mine.id)):
        with pytest.raises(NotAllowed, match="a person"):
            does()
    assert model.update(its.id, "Better.").supersedes == its.id
    adds = memory.written_by(policy("model-adds"))
    with pytest.raises(NotAllowed):
        adds.update(its.id, "x")
    with pytest.raises(NotAllowed, match="read-only"):
        memory.written_by(policy("read-only")).remember("x")
    for at in range(POLICIES["model-adds"].most or 0):
        adds.remember(f"number {at}")
    with pytest.raises(NotAllowed, match="100 entries"):
        adds.remember("one too many")
    with pytest.raises(UnknownName, match="did you mean"):
        policy("modle")


def test_a_model_writes_by_tools(memory: Memory) -> None:
    mine = memory.remember("Ann likes tea.")

    def use(name: str, who: str = "model", **given: str) -> str:
        tools = memory_tools(memory.written_by(policy(who), "Bob"))
        return asyncio.run(call(tools, name, json.dumps(given), seconds=30, chars=500)).text

    said = use("remember", text="Ann's train leaves at nine.")
    its = said.split()[-1]
    assert (
        use("recall", query="when does Ann's train leave? \" OR *").splitlines()[0]
        == f"{its}: Ann's train leaves at nine."
    )
    assert "written by a person" in use("forget", id=mine.id)
    assert "error" in use("remember", text="a\0b")
    assert use("update", id=its, text="Ann's train leaves at ten.").startswith("replaced by")
    assert memory.recall("train").entries[0].source == "model:Bob"
    assert "no tool" in use("forget", "read-only", id=its)
    assert use("recall", query="zebra") == "Nothing is remembered about that."


def test_calls_of_one_turn_write_side_by_side(memory: Memory) -> None:
    tools = memory_tools(memory.written_by(policy("model"), "Bob"))

    async def turn() -> list[str]:
        calls = (call(tools, "remember", f'{{"text": "fact {at}"}}', seconds=30, chars=500) for at in range(4))
        return [outcome.status for outcome in await asyncio.gather(*calls)]

    assert asyncio.run(turn()) == ["ok"] * 4
    assert {entry.text for entry in memory.list()} == {f"fact {at}" for at in range(4)}


def test_of_more_entries_than_there_is_room_for_a_correction_is_shown_and_the_rest_counted(memory: Memory) -> None:
    entries = [new_entry(f"Room {at} is painted blue.", "default", "person", moment=at) for at in range(1, 210)]
    memory.store.add(entries)
    memory.update(entries[2].id, "Room 3 is painted green.")
    words = memory_words(memory.recall(limit=200))
    assert words[:2] == [HEADING, "(9 more entries are remembered and not shown.)\n"]
    assert "- Room 3 is painted green.\n" in words
    assert "- Room 3 is painted blue.\n" not in words
    assert set(words[2:]) <= {entry_text(entry) for entry in memory.list()}, "whole entries"
    assert "- Room 3 is painted blue.\n" not in memory_words(memory.recall("Is room 3 painted blue?", limit=1000))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path))

    def kvorum(*words: str, code: int = 0) -> Any:
        assert main(["memory", *words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    first = kvorum("remember", "The code is 4711.")
    assert first["source"] == "person"
    second = kvorum("update", first["id"], "The code is 4812.")
    kvorum("remember", "Ann likes tea.", "--namespace", "trip")
    assert [entry["id"] for entry in kvorum("recall", "code")["entries"]] == [second["id"]]
    assert len(kvorum("list")) == 2
    assert len(kvorum("list", "--all")) == 3
    assert len(kvorum("show", first["id"])) == 2
    assert kvorum("export", str(tmp_path / "m.md"), "--all")["written"] == 3
    assert len(kvorum("forget", second["id"])) == 2
    assert kvorum("recall", "code", code=1)["entries"] == []
    assert kvorum("import", str(tmp_path / "m.md")) == {"read": 3, "new": 2}
    assert main(["memory", "list", "--all"]) == 0
    assert "(replaced by" in capsys.readouterr().out
    assert main(["memory", "forget", "nothere"]) == 2
    assert "no entry" in capsys.readouterr().err
    assert main(["memory", "rember", "x"]) == 2
    assert "did you mean remember" in capsys.readouterr().err
