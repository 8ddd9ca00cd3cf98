"""Entries found by meaning: static embeddings of a folder, beside words.

Covers: what shares no word and is near, rankings of both fused, what is missing counted, what was replaced or forgotten
found no more, the tool of a model, the environment, the command, folders that hold none. The vectors are made here, so
that it is known what is near; how good public ones are is not covered.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from model2vec import StaticModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from kvorum.cli import main
from kvorum.errors import BadRequest
from kvorum.harness.memory.embeddings import FOLDER, StaticEmbeddings, fused
from kvorum.harness.memory.memory import Memory
from kvorum.harness.memory.policy import policy
from kvorum.harness.memory.tools import memory_tools
from kvorum.harness.tools.call import call
from kvorum.store.kept_blocks import KeptBlocks
from kvorum.store.memory.entries import Entry
from kvorum.store.memory.store import MemoryStore

MEANINGS = (("cellar", "basement", "vault"), ("car", "vehicle"), ("tea", "brew", "infusion"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words of one meaning have one vector; all others are unknown."""
    words = {"[UNK]": 0, **{word: 1 + at for at, word in enumerate(sum(MEANINGS, ()))}}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    vectors = np.zeros((len(words), len(MEANINGS)), dtype=np.float32)
    for at, group in enumerate(MEANINGS):
        vectors[[words[word] for word in group], at] = 2.0
    made = tmp_path_factory.mktemp("vectors")
    StaticModel(vectors, tokenizer).save_pretrained(made)
    return made


@pytest.fixture
def memory(tmp_path: Path, folder: Path) -> Memory:
    made = Memory(
        MemoryStore(tmp_path / "m.sqlite"), kept=KeptBlocks(tmp_path / "kept"), embeddings=StaticEmbeddings(folder)
    )
    for text in ("The code of the cellar is 4711.", "Ann's car is red.", "Bob likes tea.", "The roof is new."):
        made.remember(text)
    return made


def test_other_words_of_the_same_meaning_find_an_entry(memory: Memory) -> None:
    assert memory.store.recall("basement").entries == []
    found = memory.recall("basement and brew", limit=1)
    assert found.missing == 1
    assert found.entries[0].text == "Bob likes tea.", "the newer of two that are as near"
    assert [entry.text for entry in memory.recall("vault").entries] == ["The code of the cellar is 4711."]
    assert memory.recall("zebra").entries == []
    assert memory.recall("...").entries == []
    assert memory.ranked_by == "bm25 and static embeddings"


def test_what_both_find_comes_first(memory: Memory) -> None:
    memory.remember("A vehicle stands in the yard.")
    texts = [entry.text for entry in memory.recall("red vehicle").entries]
    assert texts == ["A vehicle stands in the yard.", "Ann's car is red."]
    a, b, c = (Entry(str(at), "x", "person", at) for at in range(3))
    assert fused([a, b], [b, c]) == [b, c, a]
    assert fused([a, b], []) == [a, b]
    assert fused([a], [c]) == [c, a]


def test_what_is_replaced_or_forgotten_is_found_no_more(memory: Memory) -> None:
    first = memory.recall("basement").entries[0]
    second = memory.update(first.id, "The code of the cellar is 4812.")
    assert memory.recall("basement").entries == [second]
    memory.forget(second.id)
    assert memory.recall("basement").entries == []


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_limit_that_cannot_be(memory: Memory, limit: int) -> None:
    with pytest.raises(BadRequest, match="limit="):
        memory.recall("basement", limit=limit)


def test_a_model_recalls_by_meaning(memory: Memory) -> None:
    tools = memory_tools(memory.written_by(policy("read-only")))
    said = asyncio.run(call(tools, "recall", '{"query": "infusion"}', seconds=30, chars=500))
    assert said.text.endswith("Bob likes tea.")


def test_the_command_and_the_environment(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path))
    Memory().remember("The code of the cellar is 4711.")
    assert main(["memory", "recall", "basement", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ranked_by"] == "bm25"
    assert main(["memory", "recall", "basement", "--json", "--embeddings", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["ranked_by"] == "bm25 and static embeddings"
    monkeypatch.setenv(FOLDER, str(folder))
    assert main(["memory", "recall", "basement"]) == 0
    assert "4711" in capsys.readouterr().out
    monkeypatch.setenv(FOLDER, str(tmp_path / "none"))
    assert main(["memory", "recall", "basement"]) == 2
    assert "no folder of static embeddings" in capsys.readouterr().err
    with pytest.raises(BadRequest, match="holds no static embeddings"):
        StaticEmbeddings(tmp_path)
