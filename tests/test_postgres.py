"""Runs, responses and memory in PostgreSQL: a real server on loopback, which the tests start.

Covers: the same runs as in SQLite, claims (one taker each, a late writer refused, no transaction held open between), a
server that goes on where another was killed, a database that is restarted meanwhile, every error as one sentence
without the password, migrations at once, rights without those to make tables, four processes that write, and what
recall finds. Not covered: poolers, replicas of the database, versions before 15.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

import toy_engine
from kvorum.errors import BadRequest, KvorumError, StoreFailed
from kvorum.store.memory.store import MemoryStore
from kvorum.store.responses import ResponseStore, StoredResponse
from kvorum.store.runs import Change, Store, StoreError
from kvorum.versions import MEMORY, RUN_STORE
from postgres_server import PASSWORD, Server, postgres
from processes import at_once
from serving import Process, served
from tiny_folder import tiny_folder

SOME: dict[str, Any] = {"model": "toy:vote-2", "seed": 3, "budget": {"ticks": 60}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as up:
        yield up


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(statement))]
    engine.dispose()
    return found


# -- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_is_the_same_as_in_a_file(server: Server, tmp_path: Path) -> None:
    url, told = server.fresh(), []
    for place in ({}, {"database": url}):
        with served(toy_engine.fake(name="toy"), tmp_path / "folder", place=place) as up:
            run = up.run(**SOME)["id"]
            shown = up.until(run, "finished")
            told.append([[row["token"] for row in e["rows"]] for e in up.events(run) if e["event"] == "tick"])
            listed = up.http.get("/v1/runs").json()["data"]
            assert [one["id"] for one in listed] == [run]
            with up.http.stream("GET", f"/v1/runs/{run}/events") as stream:
                assert sum(line.startswith("id: ") for line in stream.iter_lines()) == shown["events"]
            assert up.http.delete(f"/v1/runs/{run}").status_code in (200, 204)
            assert up.http.get(f"/v1/runs/{run}").status_code == 404
    assert told[0] == told[1]
    assert rows(url, "SELECT count(*) FROM events") == [(0,)]


def begun(store: Store, run: str, fingerprint: str = "f") -> str:
    store.add(run, {"a": 1}, fingerprint, events=[])
    return run


def test_each_run_goes_to_one_taker(server: Server) -> None:
    url = server.fresh()
    first = Store(url)
    for at in range(40):
        begun(first, f"run_{at:02}", "other" if at >= 30 else "f")
    begun(first, "run_over")
    assert first.save([Change("run_over", 0, [("end", "{}")], {"status": "finished", "answer": "a\0b\ud800\\0"})]) == []
    ended = first.get("run_over")
    assert ended is not None
    assert (ended.answer, ended.over) == ("a\0b\ud800\\0", True)
    takers = [Store(url) for _ in range(3)]
    assert [taker.claims.take("f") for taker in takers] == [[], [], []], "the first one holds them"
    first.close()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        taken = list(pool.map(lambda taker: taker.claims.take("f", most=12), takers))
    assert sorted(run for some in taken for run in some) == sorted({f"run_{at:02}" for at in range(30)})
    for taker in takers:
        taker.close()


def test_who_is_late_writes_nothing(server: Server) -> None:
    """Its claim has run out, and another server has taken the run over and ended it."""
    url = server.fresh()
    late, other = Store(url), Store(url)
    late.claims.lease = 0.2
    run = begun(late, "run_a")
    assert late.save([Change(run, 0, [("start", "{}")])]) == []
    assert other.claims.take() == []
    late.claims.renew()
    assert other.claims.take() == []
    time.sleep(0.3)
    assert other.claims.take() == [run]
    assert other.claims.take() == [], "once"
    assert late.save([Change(run, 1, [("tick", "late")])]) == [run]
    assert other.save([Change(run, 1, [("end", "theirs")], {"status": "finished"})]) == []
    assert late.save([Change(run, 1, [("tick", "late")], {"status": "failed"})]) == [run]
    assert other.save([Change(run, 1, [("end", "again")])]) == [run], "it is over"
    assert [body for _, _, body in other.events(run)] == ["{}", "theirs"]
    record = other.get(run)
    assert record is not None
    assert record.status == "finished"
    late.close()
    other.close()


def test_nothing_is_open_while_a_run_waits(server: Server, tmp_path: Path) -> None:
    url = server.fresh()
    with served(toy_engine.fake(name="toy"), tmp_path, place={"database": url}) as up:
        run = up.run(**SOME, paused=True)["id"]
        up.until(run, "paused")
        ours = "FROM pg_stat_activity WHERE application_name = 'kvorum'"
        held = f"SELECT count(*) FROM pg_locks WHERE pid IN (SELECT pid {ours} AND state LIKE 'idle%')"
        end = time.monotonic() + 10  # a claim may be renewed just now: that is over at once
        while rows(url, f"SELECT pid {ours} AND state <> 'idle'") or rows(url, held) != [(0,)]:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_what_was_saved_is_not_saved_twice(server: Server) -> None:
    """A connection that is lost as it commits: nobody knows whether it did, and the same is written again."""
    store = Store(server.fresh())
    run = begun(store, "run_a")
    change = Change(run, 0, [("start", "{}"), ("tick", "1")])
    assert store.save([change]) == store.save([change]) == []
    assert len(store.events(run)) == 2
    store.close()


@pytest.mark.slow
def test_a_restarted_database_is_waited_for(tmp_path: Path) -> None:
    with postgres() as own:
        url = own.fresh()
        with served(toy_engine.fake(name="toy"), tmp_path, place={"database": url}) as up:
            run = up.run(**SOME, paused=True)["id"]
            up.until(run, "paused")
            own.stop("immediate")
            assert up.post(f"/v1/runs/{run}/resume").status_code in (200, 503)
            refused = up.post("/v1/runs", {"problem": "x"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            assert "does not answer" in refused.json()["error"]["message"]
            assert PASSWORD not in refused.text
            own.start()
            end = time.monotonic() + 30
            while up.http.get("/health").json()["status"] != "ok":
                assert time.monotonic() < end
                time.sleep(0.1)
            up.post(f"/v1/runs/{run}/resume")
            shown = up.until(run, "finished")
            assert [n for n, _, _ in up.service.store.events(run)] == list(range(shown["events"]))


@pytest.mark.slow
def test_a_killed_server_is_followed_by_another(server: Server, tmp_path: Path) -> None:
    """It goes on once, with the tokens of an undisturbed one, and who watches it elsewhere sees all of it."""
    url, model = server.fresh(), tiny_folder(tmp_path / "tiny")
    body = {"model": "tiny:hogwild-2", "params": {"final_tokens": 4}, "budget": {"ticks": 80}, "seed": 5}
    first = Process(model, url)
    whole = first.up.run(**body)["id"]
    first.up.until(whole, "finished")
    run = first.up.run(**body, paused=True)["id"]
    first.up.until(run, "paused")
    first.up.post(f"/v1/runs/{run}/step", {"ticks": 7})
    while first.up.show(run)["ticks"] < 7:
        time.sleep(0.02)
    second = Process(model, url)
    try:
        assert second.up.show(run)["ticks"] == 7
        refused = second.up.post(f"/v1/runs/{run}/resume")
        assert refused.status_code == 409
        assert "Another server goes on" in refused.json()["error"]["message"]
        first.end(signal.SIGKILL)
        server.execute("UPDATE claims SET until = 0", database=url.rpartition("/")[2])  # time goes by
        with second.up.http.stream("GET", f"/v1/runs/{run}/events") as stream:
            seen = 0
            while second.up.post(f"/v1/runs/{run}/resume").status_code != 200:
                time.sleep(0.1)
            for line in stream.iter_lines():
                seen += line.startswith("id: ")
        shown = second.up.until(run, "finished")
        assert seen == shown["events"]
        ticks = [[e["rows"] for e in second.up.events(one) if e["event"] == "tick"] for one in (whole, run)]
        tokens = [[[(row["worker"], row["token"]) for row in some] for some in one] for one in ticks]
        assert tokens[0] == tokens[1]
    finally:
        second.end()


# -- opening -------------------------------------------------------------------------------------------------------


def test_errors_are_a_sentence_without_the_password(server: Server) -> None:
    url = server.fresh()
    name = url.rpartition("/")[2]
    MemoryStore(url)
    server.execute("CREATE ROLE guest LOGIN PASSWORD 'a-secret-4711'")
    wrong = {
        server.url(name, password="a-secret-4712"): "refuses the user owner",
        server.url("nowhere"): "is not there: make the database with `createdb nowhere`",
        url.replace(str(server.port), "1"): "does not answer",
        server.url(name, user="guest"): "does not let guest do this",
        f"mysql://owner:{PASSWORD}@127.0.0.1/x": "not to 'mysql'",
        f"postgresql://owner:{PASSWORD}@127.0.0.1": "names no database",
        f"postgresql://owner:{PASSWORD}@127.0.0.1:x/y": "cannot be read",
    }
    for where, why in wrong.items():
        for opens in (MemoryStore, Store, ResponseStore):
            try:
                made = opens(where)
                if isinstance(made, MemoryStore):
                    made.list()
            except KvorumError as error:
                said = str(error)
            else:
                assert "guest" in where, where
                continue
            assert why in said
            assert "a-secret" not in said
            assert "\n" not in said
            assert said.endswith((".", "~/.pgpass."))


@pytest.mark.slow
def test_tables_are_made_once_and_used_without_the_right_to(server: Server) -> None:
    url = server.fresh()
    name = url.rpartition("/")[2]
    at_once(_open, [(url,)] * 3)
    assert dict(rows(url, "SELECT what, version FROM kvorum_versions"))[MEMORY.what] == MEMORY.newest
    server.execute(f"CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'")
    server.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writer", name)
    server.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO writer", name)
    store = MemoryStore(server.url(name, user="writer"))
    assert store.remember("it can be written").text == "it can be written"


def _open(url: str) -> None:
    Store(url).close()
    MemoryStore(url)


def test_versions(server: Server) -> None:
    """A store of version 1 had no claims; one of a later version is refused and left."""
    url = server.fresh()
    name = url.rpartition("/")[2]
    store = Store(url)
    begun(store, "run_a")
    store.close()
    server.execute("DROP TABLE claims", name)
    server.execute(f"UPDATE kvorum_versions SET version = 1 WHERE what = '{RUN_STORE.what}'", name)
    store = Store(url)
    assert store.claims.take() == ["run_a"]
    store.close()
    server.execute(f"UPDATE kvorum_versions SET version = 99 WHERE what = '{RUN_STORE.what}'", name)
    with pytest.raises(BadRequest, match="version 99"):
        Store(url)
    assert rows(url, "SELECT max(version) FROM kvorum_versions") == [(99,)]


# -- memory and responses ------------------------------------------------------------------------------------------


def test_memory_finds_the_same_in_both(server: Server, tmp_path: Path) -> None:
    stores = MemoryStore(server.fresh()), MemoryStore(tmp_path / "memory.sqlite")
    texts = [
        "The café's doors open at nine",
        "snake_case and 3.14",
        "我的车是红色的",
        "It rains",
        "opening hours: nine",
    ]
    for store in stores:
        for at, some in enumerate(texts):
            store.remember(some, time=100.0 + at)
    queries = [
        "CAFE",
        "door",
        "opened",
        "snake",
        "3.14",
        "车是什么",
        "the",
        "'; DROP TABLE words; --",
        "a & b | !c:*",
        "_",
    ]
    for query in queries:
        found = [{entry.text for entry in store.recall(query).entries} for store in stores]
        assert found[0] == found[1], query
    assert [store.ranked_by for store in stores] == ["ts_rank", "bm25"]
    shared = stores[0]
    first = shared.recall("rains").entries[0]
    second = shared.update(first.id[:5], "It snows")
    assert [entry.text for entry in shared.history(second.id)] == ["It rains", "It snows"]
    shared.forget(second.id)
    assert shared.recall("rains snows").entries == []
    assert len(shared.list(superseded=True)) == 4


def test_responses_are_kept(server: Server) -> None:
    store = ResponseStore(server.fresh(), most=2)
    for at in range(3):
        store.put(StoredResponse(f"resp_{at}", {"text": "a\0b"}, [{"n": at}], [1, 2]))
    assert store.get("resp_0") is None
    assert store.get("resp_2") == StoredResponse("resp_2", {"text": "a\0b"}, [{"n": 2}], [1, 2])
    store.put(StoredResponse("resp_2", {"text": "c"}, [], []))
    assert store.get("resp_2") == StoredResponse("resp_2", {"text": "c"}, [], [])
    assert (store.delete("resp_2"), store.delete("resp_2"), store.get("a\0")) == (True, False, None)
    store.close()


def test_who_makes_a_response_knows_of_it(server: Server, tmp_path: Path) -> None:
    """In the background it is no other server's to say that it failed; once it has ended any has it."""
    place = {"database": server.fresh()}
    told = {"model": "toy", "input": "Hello.", "background": True, "max_output_tokens": 4000}
    endless = {str(256 + len(toy_engine.MERGES)): -100}
    with (
        served(toy_engine.fake(name="toy"), tmp_path / "one", tokens=4000, place=place) as one,
        served(toy_engine.fake(name="toy"), tmp_path / "two", place=place) as two,
    ):
        path = f"/v1/responses/{one.post('/v1/responses', {**told, 'logit_bias': endless}).json()['id']}"
        assert one.http.get(path).json()["status"] in ("queued", "in_progress")
        refused = two.http.get(path)
        assert refused.status_code == 409
        assert "made by another server" in refused.json()["error"]["message"]
        assert two.post(f"{path}/cancel").status_code == 409
        assert one.post(f"{path}/cancel").json()["status"] == "cancelled"
        assert two.http.get(path).json()["status"] == "cancelled"


@pytest.mark.slow
def test_four_processes_lose_no_write(server: Server) -> None:
    url = server.fresh()
    at_once(_write, [(url, who) for who in range(4)])
    memory, store = MemoryStore(url), Store(url)
    written = sorted(entry.text for entry in memory.list())
    assert written == sorted(["everybody's", *(f"process {who} entry {at}" for who in range(4) for at in range(20))])
    for who in range(4):
        stored = store.events(f"run_{who}")
        assert [(n, json.loads(body)) for n, _, body in stored] == [(at, [who, at]) for at in range(50)]
    store.close()


def _write(url: str, who: int) -> None:
    memory, store = MemoryStore(url), Store(url)
    store.add(f"run_{who}", {}, "f")
    for at in range(50):
        assert store.save([Change(f"run_{who}", at, [("tick", json.dumps([who, at]))], {"ticks": at})]) == []
        if at < 20:
            memory.remember(f"process {who} entry {at}")
            memory.remember("everybody's")
    store.close()


def test_a_lost_server_is_a_named_error() -> None:
    with postgres() as own:
        url = own.fresh()
        memory, store = MemoryStore(url), Store(url)
        memory.remember("one")
        own.stop("immediate")
        with pytest.raises(StoreFailed, match="does not answer"):
            memory.remember("two")
        with pytest.raises(StoreError, match="does not answer"):
            store.get("run_a")
        own.start()
        memory.remember("two")
        assert len(memory.list()) == 2
        store.close()
