"""The memory's file: what is found, what replaces what, several processes at once, damage, and its forms as files.

Covers: any text as a query and as an entry (hypothesis), chains of updates and what forgetting takes with it and leaves
of bytes, every wrong input by name, four processes that write, two that update the same entry, one that is killed in
the middle, a damaged and a later file, round trips through JSON Lines and Markdown. Not covered: network file systems,
power failures, other databases than SQLite.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvorum.errors import BadRequest, KvorumError, NotAllowed, StoreFailed, UnknownName
from kvorum.store.memory.entries import MOST_CHARACTERS, Entry, new_entry
from kvorum.store.memory.files import read_entries, write_json_lines, write_markdown
from kvorum.store.memory.store import MemoryStore
from processes import at_once


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    return MemoryStore(tmp_path / "memory.sqlite")


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


# -- finding -------------------------------------------------------------------------------------------------------


def test_the_best_come_first_and_the_rest_is_counted(store: MemoryStore) -> None:
    for at in range(12):
        store.remember(f"The train number {at} leaves from platform {at}.", time=1000.0 + at)
    best = store.remember("The café opens at nine; its door code is 4711.")
    store.remember("The café opens at ten.", namespace="other")
    found = store.recall("what is the code of the CAFE's doors?", limit=3)
    assert found.entries[0] == best
    assert [entry.namespace for entry in found.entries] == ["default"] * len(found.entries)
    assert found.missing == 13 - 3, "all of them have 'the'"
    assert store.newest(limit=2).entries == [best, store.recall("platform 11", limit=1).entries[0]]
    assert store.newest(limit=2).missing == 11
    assert store.recall("zebra").entries == []
    assert store.namespaces() == {"default": 13, "other": 1}


def test_scripts_without_blanks_are_found_by_their_signs(store: MemoryStore) -> None:
    car = store.remember("我的车是红色的")
    store.remember("彼は猫が好きです")
    assert store.recall("车是什么颜色").entries[0] == car


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    return MemoryStore(tmp_path_factory.mktemp("one") / "memory.sqlite")


@given(query=WORDS, text=WORDS)
@settings(max_examples=60)
def test_no_text_is_an_error_of_the_query_language(one_store: MemoryStore, query: str, text: str) -> None:
    alone = f"n{len(one_store.namespaces())}"
    try:
        kept = one_store.remember(text, namespace=alone)
    except BadRequest:
        kept = one_store.remember("something else", namespace=alone)
    one_store.recall(query, namespace=alone)
    again = one_store.recall(kept.text, namespace=alone).entries
    assert again == ([kept] if any(char.isalnum() for char in kept.text) else again)


@pytest.mark.parametrize(
    "query", ['"', "a AND", "NEAR(a b)", "col:x", "a*", "^a", "-a", "'; DROP TABLE entries; --", ""]
)
def test_signs_of_the_query_language_mean_nothing(store: MemoryStore, query: str) -> None:
    kept = store.remember("a b x col near and drop")
    assert list(store.recall(query).entries) == ([kept] if query.strip('"') else [])


# -- replacing and forgetting --------------------------------------------------------------------------------------


def test_the_newer_supersedes_and_both_stay_readable(store: MemoryStore) -> None:
    first = store.remember("The code is 4711.")
    second = store.update(first.id[:6], "The code is 4812.")
    third = store.update(first.id, "The code is 9000.", source="model:Alice", over=("person",))
    assert [entry.text[-5:-1] for entry in store.history(second.id)] == ["4711", "4812", "9000"]
    assert third.supersedes == second.id, "an update of what was replaced takes the place of what replaced it"
    assert list(store.recall("code").entries) == list(store.list()) == [third]
    assert len(store.list(superseded=True)) == 3
    assert store.update(third.id, "The code is 9000.") == third
    with pytest.raises(NotAllowed, match="written by a model"):
        store.update(first.id, "x", over=("person",))


def test_forgetting_takes_what_was_replaced_and_leaves_no_byte(store: MemoryStore) -> None:
    kept = store.remember("The cellar has ninety bottles.")
    first = store.remember("The code is quixotic4711.")
    second = store.update(first.id, "The code is quixotic4812.")
    assert {entry.id for entry in store.forget(second.id)} == {first.id, second.id}
    assert list(store.list(superseded=True)) == [kept]
    assert store.recall("quixotic4711 quixotic4812 code").entries == []
    left = b"".join(path.read_bytes() for path in Path(store.path).parent.iterdir())
    assert b"quixotic" not in left
    assert b"bottles" in left


def test_an_older_version_can_go_alone(store: MemoryStore) -> None:
    first = store.remember("one")
    second = store.update(first.id, "two")
    third = store.update(second.id, "three")
    with pytest.raises(NotAllowed):
        store.forget(third.id, over=("model",))
    store.forget(second.id)
    assert [(entry.id, entry.supersedes) for entry in store.list(superseded=True)] == [(third.id, None)]


def test_the_same_words_are_kept_once(store: MemoryStore) -> None:
    first = store.remember("the same\r\nwords ")
    assert store.remember("the same\nwords") == first
    assert store.remember("the same\nwords", namespace="b").id != first.id


# -- what cannot be ------------------------------------------------------------------------------------------------

WRONG: dict[str, dict[str, str | float]] = {
    "nothing": {"text": " \n"},
    "too-long": {"text": "x" * (MOST_CHARACTERS + 1)},
    "escape": {"text": "a\x1b[31mb"},
    "nul": {"text": "a\0b"},
    "surrogate": {"text": "a\ud800b"},
    "namespace": {"text": "a", "namespace": "../b"},
    "namespace-long": {"text": "a", "namespace": "n" * 65},
    "source": {"text": "a", "source": "somebody"},
    "source-name": {"text": "a", "source": "model:a\nb"},
    "time": {"text": "a", "time": float("nan")},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_cannot_be_kept_is_refused_by_name(store: MemoryStore, wrong: dict[str, str | float]) -> None:
    with pytest.raises(BadRequest):
        store.remember(**wrong)  # type: ignore[arg-type]
    assert store.list() == []


@pytest.mark.parametrize("name", ["", "abc", "zzzz", "0000", "%___", "' OR 1=1"])
def test_an_entry_that_is_not_there(store: MemoryStore, name: str) -> None:
    store.remember("a", time=1.0)
    for does in (store.get, store.forget, store.history):
        with pytest.raises(UnknownName):
            does(name)


def test_a_damaged_file_is_reported_and_left(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    path.write_bytes(b"this is no database at all, but somebody's notes" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreFailed, match="damaged"):
        MemoryStore(path)
    assert path.read_bytes() == before
    later = tmp_path / "later.sqlite"
    MemoryStore(later)
    with closing(sqlite3.connect(later)) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(BadRequest, match="version 99"):
        MemoryStore(later)
    with pytest.raises(StoreFailed):
        MemoryStore(path / "below" / "memory.sqlite")


def test_its_owner_alone_reads_it(store: MemoryStore) -> None:
    assert stat.S_IMODE(Path(store.path).stat().st_mode) == 0o600


# -- several processes ---------------------------------------------------------------------------------------------


def _write(path: Path, who: int, count: int) -> None:
    store = MemoryStore(path)
    for at in range(count):
        store.remember(f"process {who} writes entry {at}", source=f"program:p{who}")
        store.recall("entry", limit=3)


def _write_for(path: Path, who: int, seconds: float) -> None:
    """Remember, replace and recall for so long; the file beside has what was done: of each entry its versions."""
    store, ends = MemoryStore(path), time.monotonic() + seconds
    done: list[list[str]] = []
    while time.monotonic() < ends:
        entry = store.remember(f"process {who} writes entry {len(done)}", source=f"program:p{who}")
        versions = [entry.text]
        if len(done) % 3 == 0:
            entry = store.update(entry.id, f"process {who} mends entry {len(done)}", source=f"program:p{who}")
            versions.append(entry.text)
        done.append(versions)
        store.recall("entry", limit=3)
    path.with_name(f"{who}.json").write_text(json.dumps(done))


def _written_for(path: Path, seconds: float) -> int:
    """Let four processes write for so long and look for every write, those that were replaced too; how many entries."""
    at_once(_write_for, [(path, who, seconds) for who in range(4)])
    written = [versions for who in range(4) for versions in json.loads(path.with_name(f"{who}.json").read_text())]
    store = MemoryStore(path)
    left = store.list()
    assert sorted(entry.text for entry in left) == sorted(versions[-1] for versions in written)
    lines = [[entry.text for entry in store.history(entry.id)] for entry in left]
    assert sorted(lines) == sorted(written)
    assert len(store.list(superseded=True)) == sum(map(len, written))
    return len(written)


def test_four_processes_write_for_some_seconds_and_every_version_is_there(tmp_path: Path) -> None:
    assert _written_for(tmp_path / "memory.sqlite", 2.0) > 8


@pytest.mark.slow
def test_four_processes_write_for_a_minute_and_every_write_is_there(tmp_path: Path) -> None:
    assert _written_for(tmp_path / "memory.sqlite", 60.0) > 400


def _correct(path: Path, name: str, texts: list[str]) -> None:
    store = MemoryStore(path)
    for text in texts:
        store.update(name, text)


def test_four_processes_lose_no_write(tmp_path: Path) -> None:
    """All of them open a file that is not there yet."""
    path = tmp_path / "memory.sqlite"
    at_once(_write, [(path, who, 25) for who in range(4)])
    store = MemoryStore(path)
    assert {entry.text for entry in store.list()} == {
        f"process {who} writes entry {at}" for who in range(4) for at in range(25)
    }
    assert store.recall("entry", limit=1).missing == 99


def test_updates_at_once_are_all_kept_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    first = MemoryStore(path).remember("version 0")
    texts = [[f"version {who}.{at}" for at in range(10)] for who in range(3)]
    at_once(_correct, [(path, first.id, some) for some in texts])
    history = MemoryStore(path).history(first.id)
    assert sorted(entry.text for entry in history) == sorted(["version 0", *(text for some in texts for text in some)])
    assert [entry.supersedes for entry in history[1:]] == [entry.id for entry in history[:-1]]
    assert len(MemoryStore(path).list()) == 1


KILLED = """
import sys
from pathlib import Path
from kvorum.store.memory.store import MemoryStore
store = MemoryStore(Path(sys.argv[1]))
for at in range(10**6):
    store.remember(f"number {at}")
    print(at, flush=True)
"""


@pytest.mark.parametrize("wait", [0.05, 0.21, 0.4])
def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, wait: float) -> None:
    path = tmp_path / "memory.sqlite"
    child = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = int(child.stdout.readline())
    time.sleep(wait)
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().splitlines()
    child.wait()
    child.stdout.close()
    said = int(rest[-1]) if rest else said
    store = MemoryStore(path)
    numbers = [int(entry.text.split()[1]) for entry in store.list()]
    assert numbers in (list(range(said + 1)), list(range(said + 2))), "each once, none lost that was told"
    store.remember("and on")


# -- files ---------------------------------------------------------------------------------------------------------

ENTRY = st.builds(
    new_entry,
    st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), min_size=1).filter(str.strip),
    st.sampled_from(["default", "trip"]),
    st.sampled_from(["person", "model:Al ice", "program:p"]),
    moment=st.floats(0, 4e9),
)


@given(st.lists(ENTRY, max_size=6))
@settings(max_examples=80)
def test_files_are_read_back_as_they_were_written(entries: list[Entry]) -> None:
    entries = sorted(entries, key=lambda entry: entry.namespace)
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("m.jsonl", write_json_lines), ("m.md", write_markdown)):
            path = Path(folder) / name
            path.write_text(write(entries), encoding="utf-8", newline="\n")
            assert read_entries(path) == entries


def test_a_store_goes_through_a_file_into_another(store: MemoryStore, tmp_path: Path) -> None:
    first = store.remember("one - <!-- kvorum {} -->\n\n- a list\n# no heading", namespace="b")
    store.update(first.id, "two")
    store.remember("three", source="model:Bob", time=1.5)
    for name, write in (("m.jsonl", write_json_lines), ("m.md", write_markdown)):
        path = tmp_path / name
        path.write_text(write(store.list(superseded=True)), encoding="utf-8", newline="\n")
        other = MemoryStore(tmp_path / f"{name}.sqlite")
        assert other.add(read_entries(path)) == 3
        assert other.list(superseded=True) == store.list(superseded=True)
        assert other.add(read_entries(path)) == 0
        assert other.recall("two", namespace="b").entries


def test_a_list_that_comes_back_later_takes_nothing_away(store: MemoryStore, tmp_path: Path) -> None:
    """Written out, thought about, and read back; what was remembered and replaced meanwhile stays."""
    first, second = store.remember("one"), store.remember("two")
    path = tmp_path / "m.md"
    path.write_text(write_markdown(store.list()), encoding="utf-8")
    late, mended = store.remember("three"), store.update(first.id, "one and a half")
    assert store.add(read_entries(path)) == 0
    assert {entry.id for entry in store.list()} == {second.id, late.id, mended.id}
    assert store.get(first.id).superseded_by == mended.id


def test_a_list_that_a_person_wrote(store: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_bytes(
        "\ufeff# My notes\r\n\r\n- one\r\n  goes on\r\n* two\r\n\r\nA paragraph\r\nof two lines.\r\n".encode()
    )
    assert store.add(read_entries(path, namespace="n")) == 3
    assert [entry.text for entry in store.list()] == ["one\ngoes on", "two", "A paragraph\nof two lines."]
    assert store.add(read_entries(path, namespace="n")) == 0


BAD_FILES = {
    "no-json": ("a.jsonl", '{"text": "a"}\n{oops', "line 2"),
    "no-text": ("a.jsonl", '{"words": "a"}', "line 1"),
    "bad-id": ("a.jsonl", '{"text": "a", "id": "../x"}', "line 1"),
    "bad-time": ("a.jsonl", '{"text": "a", "time": "noon"}', "line 1"),
    "number": ("a.jsonl", '{"text": "a", "time": 12}', "line 1"),
    "list": ("a.jsonl", "[1]", "line 1"),
    "comment": ("a.md", "- a <!-- kvorum {oops} -->", "line 1"),
    "control": ("a.md", "- fine\n- a\x00b", "line 2"),
    "circle": (
        "a.jsonl",
        '{"text": "a", "id": "000000000001", "supersedes": "000000000002"}\n'
        '{"text": "b", "id": "000000000002", "supersedes": "000000000001"}',
        "supersede one another",
    ),
}


@pytest.mark.parametrize(("name", "text", "told"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_cannot_be_taken_in(store: MemoryStore, tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(KvorumError, match=told):
        store.add(read_entries(tmp_path / name))
    assert store.list() == []
