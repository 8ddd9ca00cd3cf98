"""Runs over HTTP: events, pause, step, commands, stop, fork, traces, and what a restart makes of unfinished ones.

Covers a server stopped in order and one killed with SIGKILL at random moments, a changed model, a store that takes
nothing.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from kvorum import programs
from kvorum.engine.budget import Budget
from kvorum.sampling.sampling import Sampling
from serving import Process, Served, served
from tiny_folder import tiny_file

SOME = {"model": "toy:hogwild-3", "params": {"final_tokens": 4}, "seed": 4}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(toy_engine.fake(name="toy"), tmp_path_factory.mktemp("store")) as up:
        yield up


def tokens(events: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The tokens of each tick."""
    return [[row["token"] for row in event["rows"]] for event in events if event["event"] == "tick"]


def stream(server: Served, run: str, **headers: str) -> list[tuple[str | None, str, dict[str, Any]]]:
    """All server-sent events until the server closes the stream, as (id, event, data)."""
    text = server.http.get(f"/v1/runs/{run}/events", headers=headers).text
    found = []
    for part in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in part.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in lines:
            found.append((lines.get("id"), lines["event"], json.loads(lines["data"])))
    return found


def test_a_run_equals_the_engines_own(server: Served) -> None:
    run = server.run(**SOME, budget={"ticks": 20})
    shown = server.until(run["id"], "finished")
    own = toy_engine.fake(name="toy", prefill_chunk=256).run(
        programs.hogwild,
        "Count to ten.",
        workers=3,
        budget=Budget(ticks=20),
        seed=4,
        final_tokens=4,
        sampling=Sampling(temperature=0.6, top_p=0.95),
    )
    assert tokens(server.events(run["id"])) == tokens(own.trace.events)
    assert (shown["answer"], shown["outcome"]) == (own.answer, own.outcome)
    assert shown["ledger"]["decoded"] == own.ledger.decoded
    assert [e["event"] for e in server.events(run["id"])] == [e["event"] for e in own.trace.events]


def test_events_stream_and_resume(server: Served) -> None:
    run = server.run(**SOME, budget={"ticks": 15})["id"]
    told = stream(server, run)
    stored = [(n, kind, data) for n, kind, data in told if kind != "status"]
    assert [int(n) for n, _, _ in stored if n] == list(range(len(stored)))
    assert [data for _, _, data in stored] == server.events(run)
    assert told[0][1] == "status"
    assert told[-1][2]["status"] == "finished"
    rest = [n for n, kind, _ in stream(server, run, **{"Last-Event-ID": "7"}) if kind != "status"]
    assert rest == [n for n, _, _ in stored[8:]]
    last = {"Last-Event-ID": str(len(stored) - 1)}
    assert server.http.get(f"/v1/runs/{run}/events", headers=last).status_code == 204


def test_pause_step_and_commands(server: Served) -> None:
    run = server.run(**SOME, budget={"ticks": 30}, paused=True)["id"]
    assert server.until(run, "paused")["ticks"] == 0
    assert server.post(f"/v1/runs/{run}/step", {"ticks": 3}).json()["status"] == "paused"
    while server.show(run)["ticks"] < 3:
        time.sleep(0.01)
    for body in (
        {"kind": "say", "worker": "Bob", "text": " Listen."},
        {"kind": "share", "text": "It is ten."},
        {"kind": "leave", "worker": "Carol"},
    ):
        assert server.post(f"/v1/runs/{run}/commands", body).status_code == 202
    assert server.post(f"/v1/runs/{run}/commands", {"kind": "leave", "worker": "Zoe"}).status_code == 409
    time.sleep(0.1)
    assert server.show(run)["ticks"] == 3
    server.post(f"/v1/runs/{run}/step")
    while server.show(run)["ticks"] < 4:
        time.sleep(0.01)
    events = server.events(run)
    assert [event["kind"] for event in events if event["event"] == "command"] == ["say", "share", "leave"]
    (row,) = [row for row in events[-1]["rows"] if row["worker"] == "Bob"] if events[-1]["event"] == "tick" else [{}]
    assert "Listen." in row["given"]
    assert [row["worker"] for row in events[-1]["rows"]] == ["Alice", "Bob"]
    for body, why in (
        ({"kind": "say", "worker": "Carol", "text": "x"}, "Carol has ended or left"),
        ({"kind": "leave", "worker": "Carol"}, "Carol has ended or left"),
        ({"kind": "join", "worker": "Bob"}, "named Bob already"),
    ):
        refused = server.post(f"/v1/runs/{run}/commands", body)
        assert refused.status_code == 409
        assert why in refused.json()["error"]["message"]
    server.post(f"/v1/runs/{run}/commands", {"kind": "answer"})
    assert server.post(f"/v1/runs/{run}/resume").json()["status"] in ("running", "finished")
    assert server.until(run, "finished")["outcome"] == "forced"
    assert server.post(f"/v1/runs/{run}/pause").status_code == 409


@pytest.mark.parametrize("program", ["solo", "vote", "tree", "thread"])
def test_any_program_can_be_asked_for_its_answer(server: Served, program: str) -> None:
    ask_for_the_answer(server, program)


def test_latent_thinkers_can_be_asked_for_their_answer(tmp_path: Path) -> None:
    with served(toy_engine.engine(name="toy"), tmp_path) as server:
        ask_for_the_answer(server, "relay")


def ask_for_the_answer(server: Served, program: str) -> None:
    params = {} if program == "tree" else {"final_tokens": 3}
    run = server.run(program=program, params=params, budget={"ticks": 400}, paused=True)["id"]
    server.until(run, "paused")
    server.post(f"/v1/runs/{run}/step", {"ticks": 2})
    while server.show(run)["ticks"] < 2:
        time.sleep(0.01)
    refused = server.post(f"/v1/runs/{run}/commands", {"kind": "join", "worker": "Zoe"})
    assert refused.status_code == 409
    assert "Nobody can join" in refused.json()["error"]["message"]
    server.post(f"/v1/runs/{run}/commands", {"kind": "answer"})
    server.post(f"/v1/runs/{run}/resume")
    assert server.until(run, "finished")["ticks"] < 120


def test_stop_and_delete(server: Served) -> None:
    endless = {**SOME, "params": {"suppress_end": True}, "budget": {"ticks": 1000}}
    for paused in (False, True):
        run = server.run(**endless, paused=paused)["id"]
        server.until(run, "paused" if paused else "running")
        assert server.post(f"/v1/runs/{run}/stop").json()["status"] == "stopped"
        assert server.free()
    assert server.http.delete(f"/v1/runs/{run}").json() == {"id": run, "deleted": True}
    assert server.http.get(f"/v1/runs/{run}").status_code == 404


def test_fork(server: Served) -> None:
    run = server.run(**SOME, budget={"ticks": 20})["id"]
    server.until(run, "finished")
    same = server.post(f"/v1/runs/{run}/fork", {"tick": 9}).json()
    other = server.post(f"/v1/runs/{run}/fork", {"tick": 9, "seed": 77}).json()
    first = tokens(server.events(run))
    assert other["parent"] == {"run": run, "tick": 9}
    server.until(same["id"], "finished")
    server.until(other["id"], "finished")
    assert tokens(server.events(same["id"])) == first
    forked = tokens(server.events(other["id"]))
    assert forked[:9] == first[:9]
    assert forked != first
    again = server.post(f"/v1/runs/{other['id']}/fork", {"tick": 12}).json()["id"]
    server.until(again, "finished")
    assert tokens(server.events(again)) == forked
    assert server.post(f"/v1/runs/{run}/fork", {"tick": 9999}).status_code == 409


def test_what_was_said_is_forgotten_by_a_fork_from_before(server: Served) -> None:
    """It is the run to which it was never said; the old one stays."""
    plain = server.run(**SOME, budget={"ticks": 20})["id"]
    run = server.run(**SOME, budget={"ticks": 20}, paused=True)["id"]
    server.until(run, "paused")
    server.post(f"/v1/runs/{run}/step", {"ticks": 5})
    while server.show(run)["ticks"] < 5:
        time.sleep(0.01)
    server.post(f"/v1/runs/{run}/commands", {"kind": "say", "worker": "Bob", "text": " The code is 4711."})
    server.post(f"/v1/runs/{run}/resume")
    for each in (plain, run):
        server.until(each, "finished")
    events = server.events(run)
    (said,) = [event["tick"] for event in events if event["event"] == "command"]
    assert tokens(events) != tokens(server.events(plain))
    forgotten = server.post(f"/v1/runs/{run}/fork", {"tick": said}).json()["id"]
    server.until(forgotten, "finished")
    assert tokens(server.events(forgotten)) == tokens(server.events(plain))
    assert not [event for event in server.events(forgotten) if event["event"] == "command" or "4711" in str(event)]


def test_list(server: Served) -> None:
    runs = [server.run(**SOME, budget={"ticks": 1})["id"] for _ in range(3)]
    listed = server.http.get("/v1/runs", params={"limit": 2}).json()
    assert [run["id"] for run in listed["data"]] == runs[:0:-1]
    assert listed["has_more"]
    older = server.http.get("/v1/runs", params={"before": runs[1], "limit": 1}).json()
    assert older["data"][0]["id"] == runs[0]


# -- restarts -------------------------------------------------------------------------------------------------------


def test_a_restart_goes_on(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path) as server:
        whole = server.run(**SOME, budget={"ticks": 60})["id"]
        server.until(whole, "finished", "failed")
        expected = tokens(server.events(whole))
        run = server.run(**SOME, budget={"ticks": 60}, paused=True)["id"]
        server.until(run, "paused")
        server.post(f"/v1/runs/{run}/step", {"ticks": 17})
        server.post(f"/v1/runs/{run}/commands", {"kind": "say", "worker": "Bob", "text": ""})
        while server.show(run)["ticks"] < 17:
            time.sleep(0.01)
        before = server.events(run)
    with served(toy_engine.fake(name="toy"), tmp_path) as server:
        assert server.until(run, "paused")["ticks"] == 17
        time.sleep(0.3)
        assert server.events(run) == before  # it has repeated them, and told nothing twice
        server.post(f"/v1/runs/{run}/resume")
        server.until(run, "finished")
        assert server.events(run)[: len(before)] == before
        assert tokens(server.events(run)) == expected
        assert server.show(whole)["status"] == "finished"


@pytest.mark.forward
def test_another_model_holds_the_run(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path) as server:
        run = server.run(**SOME, budget={"ticks": 60}, paused=True)["id"]
        server.until(run, "paused")
        server.post(f"/v1/runs/{run}/step", {"ticks": 5})
        while server.show(run)["ticks"] < 5:
            time.sleep(0.01)
        before = server.events(run)
    with served(toy_engine.engine(name="toy", seed=1), tmp_path) as server:
        shown = server.show(run)
        assert (shown["status"], shown["error"]["type"]) == ("paused", "model_changed")
        assert server.post(f"/v1/runs/{run}/resume").status_code == 409
        assert server.events(run) == before
    with served(toy_engine.fake(name="toy"), tmp_path) as server:
        server.post(f"/v1/runs/{run}/resume")
        assert server.until(run, "finished")["error"] is None


def test_a_locked_store_holds_runs_and_lets_them_go(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path) as server:
        whole = server.run(**SOME, budget={"ticks": 200})["id"]
        server.until(whole, "finished")
        run = server.run(**SOME, budget={"ticks": 200}, paused=True)["id"]
        server.until(run, "paused")
        server.post(f"/v1/runs/{run}/step", {"ticks": 5})
        while server.show(run)["ticks"] < 5:
            time.sleep(0.01)
        other = sqlite3.connect(tmp_path / "runs.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert server.post(f"/v1/runs/{run}/resume").status_code == 200
        refused = server.post("/v1/runs", {"problem": "x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert "locked" in refused.json()["error"]["message"]
        shown = server.until(run, "paused")
        assert shown["error"]["type"] == "store_unavailable"
        assert server.http.get("/health").json()["status"] == "degraded"
        other.execute("ROLLBACK")
        other.close()
        server.until(run, "finished")
        assert tokens(server.events(run)) == tokens(server.events(whole))


def test_a_run_whose_events_are_gone_is_watched_to_its_end(tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path) as server:
        run = server.run(**SOME, budget={"ticks": 4})["id"]
        server.until(run, "finished")
        with closing(sqlite3.connect(tmp_path / "runs.sqlite")) as other, other:
            other.execute("DELETE FROM events WHERE n > 2")
        assert [number for number, *_ in stream(server, run) if number is not None] == ["0", "1", "2"]


def test_two_servers_do_not_share_a_store(tmp_path: Path) -> None:
    from kvorum.errors import BadRequest

    with (
        served(toy_engine.fake(name="toy"), tmp_path),
        pytest.raises(BadRequest, match="--store"),
        served(toy_engine.fake(name="toy"), tmp_path),
    ):
        pass


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """`kvorum serve` is killed with SIGKILL again and again while two runs go on; they end as undisturbed ones do."""
    model, choose = tiny_file(), random.Random(1)
    runs: dict[str, int] = {}
    body = {"model": "tiny:hogwild-2", "params": {"final_tokens": 4}, "budget": {"ticks": 100}}
    server = Process(model, tmp_path / "store")
    alone = server.up.run(**body, seed=0)["id"]
    server.up.until(alone, "finished")
    for seed in range(2):
        runs[server.up.run(**body, seed=seed)["id"]] = seed
    for _ in range(2):
        time.sleep(choose.random() * 0.5)
        server.end()
        server = Process(model, tmp_path / "store")
    assert server.up.show(alone)["status"] == "finished"
    ends = {seed: server.up.until(run, "finished") for run, seed in runs.items()}
    killed = {seed: server.up.events(run) for run, seed in runs.items()}
    for seed in range(2):
        again = server.up.run(**body, seed=seed)["id"]
        assert server.up.until(again, "finished")["answer"] == ends[seed]["answer"]
        assert tokens(server.up.events(again)) == tokens(killed[seed])
    assert server.end() == ""
