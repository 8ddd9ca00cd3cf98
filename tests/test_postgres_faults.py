"""Faults that users reported of runs in PostgreSQL (P109 to P116), each made to happen to a real server on loopback.

Covers: nothing open while a model computes, a database that ends idle transactions, one that is restarted while a
client of another server watches, no lock left by who takes runs over, connections that the server ends before, in and
again and again between writes; and a server that stands while its model's processes are gone. Not covered: poolers;
which rows cannot arise here is in ``test_reported_faults``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import toy_engine
from breakable import Breakable, breakable
from kvorum import Engine
from kvorum.backends.backend import Done, Work
from kvorum.store.runs import Change, Store, StoreError
from postgres_server import PASSWORD, Server, postgres
from serving import Served, served

BODY: dict[str, Any] = {"model": "toy:vote-2", "seed": 3}
OURS = "FROM pg_stat_activity WHERE application_name = 'kvorum' AND datname = current_database()"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as up:
        yield up


def numbers(up: Served, run: str) -> list[int]:
    """Of the stored events of a run."""
    return [n for n, _, _ in up.service.store.events(run)]


def tokens(up: Served, run: str) -> list[list[tuple[str, int]]]:
    """Who wrote which, tick by tick."""
    return [[(row["worker"], row["token"]) for row in e["rows"]] for e in up.events(run) if e["event"] == "tick"]


def test_nothing_is_open_while_the_model_computes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P109: two looks within each forward pass of a real model see no transaction that is open in both."""
    url = server.fresh()
    name = url.rpartition("/")[2]
    engine: Engine = toy_engine.engine(name="toy")
    compute, stayed, looks = engine.backend.forward, list[Any](), 0

    def looked_at(work: Work) -> Done:
        nonlocal looks
        seen = []
        for _ in range(2):
            seen.append(set(server.execute(f"SELECT pid, xact_start {OURS} AND xact_start IS NOT NULL", name)))
            time.sleep(0.02)
        stayed.extend(seen[0] & seen[1])
        looks += 1
        return compute(work)

    monkeypatch.setattr(engine.backend, "forward", looked_at)
    with served(engine, tmp_path, place={"database": url}) as up:
        run = up.run(**BODY, budget={"ticks": 40})["id"]
        shown = up.until(run, "finished")
        assert numbers(up, run) == list(range(shown["events"]))
    assert looks >= shown["ticks"] >= 20
    assert stayed == []


def test_a_database_that_ends_idle_transactions(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P110: a tick takes twice as long as a transaction may be idle; the run ends, with each event once."""
    url = server.fresh()
    name = url.rpartition("/")[2]
    server.execute(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '200ms'")
    where = url.replace("+psycopg", "")
    with closing(psycopg.connect(where)) as idle:  # the database means it
        idle.execute("SELECT 1")
        time.sleep(0.6)
        with pytest.raises(psycopg.Error, match="idle-in-transaction"):
            idle.execute("SELECT 1")
    engine: Engine = toy_engine.fake(name="toy")
    compute = engine.backend.forward

    def slow(work: Work) -> Done:
        time.sleep(0.4)
        return compute(work)

    monkeypatch.setattr(engine.backend, "forward", slow)
    with served(engine, tmp_path, place={"database": url}) as up:
        run, end = up.run(**BODY, budget={"ticks": 8})["id"], time.monotonic() + 60
        while (shown := up.show(run)).get("status") != "finished":  # on a busy machine a look may be ended, too
            assert time.monotonic() < end, shown
            time.sleep(0.1)
    assert server.execute(f"SELECT n FROM events WHERE run = '{run}' ORDER BY n", name) == [
        (n,) for n in range(shown["events"])
    ]


def test_a_run_whose_engine_is_gone_is_another_servers(server: Server, tmp_path: Path) -> None:
    """At once, not when a claim has run out; the first server, which still stands, does not take it back."""
    body = {"program": "hogwild", "workers": 2, "budget": {"ticks": 60}, "seed": 3, "params": {"suppress_end": True}}
    with served(breakable(Breakable()), tmp_path / "alone") as up:
        run = up.run(**body)["id"]
        up.until(run, "finished", "failed")
        whole = tokens(up, run)
    place, broken = {"database": server.fresh()}, Breakable(dies=30)
    with (
        served(breakable(broken), tmp_path / "one", place=place) as one,
        served(breakable(Breakable()), tmp_path / "other", place=place) as other,
    ):
        run = one.run(**body)["id"]
        assert one.until(run, "finished", "failed", "paused", seconds=25)["status"] == "finished"
        assert tokens(one, run) == tokens(other, run) == whole
        assert one.http.get("/health").status_code == 503
    assert broken.ticks == 30


def test_who_watches_from_another_server_over_a_restart(tmp_path: Path) -> None:
    """P112: each event comes once and in order, those of before and after, and the stream ends with the run."""
    with postgres() as own:
        place = {"database": own.fresh()}
        with (
            served(toy_engine.fake(name="toy"), tmp_path / "one", place=place) as one,
            served(toy_engine.fake(name="toy"), tmp_path / "two", place=place) as two,
        ):
            run = one.run(**BODY, budget={"ticks": 60}, paused=True)["id"]
            one.until(run, "paused")
            one.post(f"/v1/runs/{run}/step", {"ticks": 5})
            lines: list[str] = []

            def watch() -> None:
                with two.http.stream("GET", f"/v1/runs/{run}/events", timeout=120) as stream:
                    lines.extend(stream.iter_lines())

            def ids() -> list[int]:
                return [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]

            watcher = threading.Thread(target=watch)
            watcher.start()
            end = time.monotonic() + 30
            while len(ids()) < 5:
                assert time.monotonic() < end
                time.sleep(0.05)
            own.stop("immediate")
            time.sleep(2.0)  # some looks of the other server's fail
            assert watcher.is_alive(), lines[-3:]
            own.start()
            while one.post(f"/v1/runs/{run}/resume").status_code != 200:
                assert time.monotonic() < end + 30
                time.sleep(0.1)
            shown = one.until(run, "finished")
            watcher.join(30)
            assert not watcher.is_alive()
            assert ids() == list(range(shown["events"]))
            assert not [line for line in lines if '"error":{' in line]


def test_who_takes_runs_leaves_no_lock(server: Server) -> None:
    """P115: also where several take at once; their sessions are still there, idle."""
    url = server.fresh()
    name = url.rpartition("/")[2]
    first, takers = Store(url), [Store(url) for _ in range(3)]
    for at in range(20):
        first.add(f"run_{at:02}", {}, "f")
    first.close()
    with ThreadPoolExecutor(3) as pool:
        taken = list(pool.map(lambda taker: taker.claims.take("f", most=9), takers))
    assert sorted(run for some in taken for run in some) == [f"run_{at:02}" for at in range(20)]
    assert server.execute(f"SELECT count(*) {OURS} AND state = 'idle'", name) >= [(len(takers),)]
    assert server.execute(f"SELECT count(*) FROM pg_locks WHERE pid IN (SELECT pid {OURS})", name) == [(0,)]
    for taker in takers:
        taker.close()


def end_sessions(server: Server, name: str, which: str = "") -> int:
    """End kvorum's connections to a database from the server's side; how many there were."""
    return len(server.execute(f"SELECT pg_terminate_backend(pid) {OURS} {which}", name))


def test_a_connection_that_ends_before_and_in_a_write(server: Server) -> None:
    """P116: before, it is replaced unseen; in it, nothing is stored, which is said, and the same write goes through."""
    url = server.fresh()
    name = url.rpartition("/")[2]
    store = Store(url)
    store.add("run_a", {}, "f")
    first, second = Change("run_a", 0, [("start", "{}")]), Change("run_a", 1, [("tick", "1")], {"ticks": 1})
    assert end_sessions(server, name) >= 1
    assert store.save([first]) == []
    where = url.replace("+psycopg", "")
    with closing(psycopg.connect(where)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT * FROM runs FOR UPDATE")  # so the write stands still in its midst
        writing = pool.submit(store.save, [second])
        end = time.monotonic() + 10
        while not end_sessions(server, name, "AND wait_event_type = 'Lock'"):
            assert time.monotonic() < end
            time.sleep(0.02)
        with pytest.raises(StoreError, match="does not answer") as said:
            writing.result(10)
        assert PASSWORD not in str(said.value)
    assert len(store.events("run_a")) == 1
    for _ in range(2):
        assert store.save([second]) == []
    assert [n for n, _, _ in store.events("run_a")] == [0, 1]
    store.close()


def test_connections_that_end_again_and_again(server: Server, tmp_path: Path) -> None:
    """P116: a run ends all the same, with the tokens of an undisturbed one and each event once."""
    url = server.fresh()
    name = url.rpartition("/")[2]
    over, ended = threading.Event(), 0

    def disturb() -> None:
        nonlocal ended
        while not over.wait(0.05):
            ended += end_sessions(server, name)

    with served(toy_engine.fake(name="toy"), tmp_path, place={"database": url}) as up:
        whole = up.run(**BODY, budget={"ticks": 60})["id"]
        up.until(whole, "finished")
        run = up.run(**BODY, budget={"ticks": 60}, paused=True)["id"]
        up.until(run, "paused")
        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            end = time.monotonic() + 30
            while up.post(f"/v1/runs/{run}/resume").status_code != 200:
                assert time.monotonic() < end
                time.sleep(0.05)
            time.sleep(1.5)
        finally:
            over.set()
            disturber.join()
        shown = up.until(run, "finished")
        assert ended >= 3
        assert numbers(up, run) == list(range(shown["events"]))
        assert tokens(up, run) == tokens(up, whole)
