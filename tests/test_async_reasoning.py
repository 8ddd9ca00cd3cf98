"""A thinker and a writer at once, against the published layouts and the published state machine.

Covers the switches and who has a token in every tick, rebuilt as a slow loop over tokens and answers to the probe on
random runs; one stream of thoughts and answer; words said meanwhile, to a run, over the server while it streams, and as
a further message of the conversation; thinking and then writing; a budget that ends before the first word. What every
row sees and every token is held against dense forwards in ``test_async_reasoning_dense.py``; models with a think part:
``test_async_reasoning_think.py``. Budgets, nesting and replay are tested where those of all programs are. Not covered:
quality, which is measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Command, Engine, Result, Run, Sampling, programs
from kvorum.store.events import note_data
from serving import Served, served

RANDOM = Sampling(temperature=1.0)


def solve(engine: Engine, seed: int = 0, ticks: int = 60, **options: Any) -> Result:
    options.setdefault("every", 4)
    return engine.run(
        programs.async_reasoning,
        "What is 2+3?",
        budget=Budget(ticks=ticks),
        sampling=options.pop("sampling", RANDOM),
        seed=seed,
        final_tokens=4,
        **options,
    )


@cache
def scripted(seed: int) -> tuple[Engine, Result]:
    """A random run with many empty lines and, now and then, an end."""
    engine = toy_engine.fake()
    (line,) = engine.tokenizer("\n").input_ids
    bias = {line: 5.0, **dict.fromkeys(engine.ends, 2.5)}
    return engine, solve(engine, seed, ticks=150, sampling=Sampling(temperature=1.0, logit_bias=bias))


def slow_loop(result: Result, every: int, ends: frozenset[int], read: Any) -> Iterator[tuple[int, str]]:
    """(tick, who has a token) by the published rules, from the tokens that came and the answers to the probe."""
    answers = iter(
        [note_data(e)["answer"] for e in result.trace.events if e["event"] == "note" and e["kind"] == "decided"]
    )
    tokens = [iter(worker.ids) for worker in result.workers]
    mode, step = "T", 0
    thought: list[int] = []
    written: list[int] = []
    while True:
        fresh: dict[str, int] = {}
        for name, stream, log in (("T", tokens[0], thought), ("W", tokens[1], written)):
            if name in mode:
                token = next(stream, None)
                if token is None:
                    return
                log.append(token)
                fresh[name] = token
        yield step, mode
        step += 1
        if "W" in mode and fresh["W"] in ends:
            return
        if "T" in mode and fresh["T"] in ends:
            mode = "W"
        elif "T" in mode:
            if "W" in mode and read(written).endswith("\n\n"):
                mode = "T"
            if step % every == 0 or read(thought[-2:]).endswith("\n\n"):
                answer = next(answers, None)
                if answer is None:
                    return
                mode = "TW" if answer == "Yes" else "T"


@pytest.mark.parametrize("seed", range(20))
def test_the_switches_are_those_of_the_published_state_machine(seed: int) -> None:
    engine, result = scripted(seed)
    events = result.trace.events
    found = ["".join(row["worker"][0] for row in e["rows"]) for e in events if e["event"] == "tick"]
    loop = [mode for _, mode in slow_loop(result, 4, engine.ends, lambda ids: engine.tokenizer.decode(ids))]
    assert found[: len(loop)] == loop
    last = found[len(loop) :]  # of a writer that the budget left without a word, four ticks at most
    assert last == ["W"] * len(last)
    assert len(last) <= 4 * (result.outcome == "forced")


def test_the_random_runs_hold_all_modes() -> None:
    seen = set()
    for seed in range(20):
        for event in scripted(seed)[1].trace.events:
            if event["event"] == "tick":
                seen.add(tuple(row["worker"] for row in event["rows"]))
    assert seen == {("Thinker",), ("Thinker", "Writer"), ("Writer",)}


def test_words_said_meanwhile_stand_behind_the_problem_and_reach_both() -> None:
    engine = toy_engine.fake()
    said: list[Run] = []

    def control(run: Run) -> None:
        said.append(run)
        run.commands.append(Command("say", "Thinker", "And times 4?"))

    solve(engine, ticks=40, think=12, control=control)
    ids = said[0].encode("\n\nAnd times 4?")
    thinker, writer = said[0].workers
    assert thinker.view.blocks[0].ids[-len(ids) :] == ids
    text = engine.tokenizer.decode(writer.own.ids)
    assert "(There is more from the user now.)" in text
    assert engine.tokenizer.decode(thinker.own.ids).count("And times 4?") == 1


def test_thinking_and_then_writing_asks_nothing() -> None:
    result = solve(toy_engine.fake(), ticks=40, order="then", think=9)
    events = result.trace.events
    assert not [e for e in events if e["event"] == "note" and e["kind"] == "decided"]
    modes = ["".join(row["worker"][0] for row in e["rows"]) for e in events if e["event"] == "tick"]
    assert modes[:10] == ["T"] * 9 + ["W"]
    assert set(modes[9:]) == {"W"}


def test_thoughts_encoded_again_stand_in_a_block_of_their_own() -> None:
    held: list[Run] = []
    solve(toy_engine.fake(), ticks=40, thoughts="reencode", think=9, control=held.append)
    thinker, writer = held[0].workers
    names = [block.name for block in writer.view.blocks]
    assert names == ["input", "opening", "thoughts", "split", "Writer"]
    assert writer.view.blocks[2].ids == thinker.own.ids


def long_body(think: int, **more: Any) -> dict[str, Any]:
    """A request whose thinker and writer work side by side, with empty lines now and then."""
    (line,) = toy_engine.fake().tokenizer("\n").input_ids
    return {
        "model": "toy:async_reasoning",
        "messages": [{"role": "user", "content": "What is 2+3?"}],
        "stream": True,
        "seed": 3,
        "temperature": 1.0,
        "kvorum": {"params": {"every": 4, "think": think}},
        "logit_bias": {str(line): 5},
        **more,
    }


def chunks(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for text in lines:
        if text.startswith("data: {"):
            yield json.loads(text[6:])


def deltas(events: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """(kind, text) of each."""
    found = [choice["delta"] for event in events for choice in event["choices"]]
    return [(kind, one[kind]) for one in found for kind in ("reasoning_content", "content") if one.get(kind)]


def test_thoughts_and_answer_in_one_stream(tmp_path: Path) -> None:
    """Both come as deltas, side by side; the thoughts end before the answer does, which begins before they do."""
    with (
        served(toy_engine.fake(name="toy"), tmp_path) as server,
        server.http.stream("POST", "/v1/chat/completions", json=long_body(40, max_tokens=150)) as reply,
    ):
        found = deltas(chunks(reply.iter_lines()))
    kinds = "".join(kind[0] for kind, _ in found)
    assert "cr" in kinds, "thoughts go on behind the first words"
    assert kinds[-1] == "c"
    assert "Thinker |" not in "".join(words for kind, words in found if kind == "reasoning_content")


def paused(server: Served, lines: Iterator[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The one run that is at work, held after its first words, and what has come of its stream."""
    begun = [next(lines)]
    run = next(run["id"] for run in server.http.get("/v1/runs").json()["data"] if run["status"] == "running")
    assert server.post(f"/v1/runs/{run}/pause").status_code == 200
    server.until(run, "paused")
    return run, begun


def test_people_add_to_their_question_while_thoughts_and_answer_stream(tmp_path: Path) -> None:
    with (
        served(toy_engine.fake(name="toy"), tmp_path) as server,
        server.http.stream("POST", "/v1/chat/completions", json=long_body(150, max_tokens=400)) as reply,
    ):
        lines = chunks(reply.iter_lines())
        run, events = paused(server, lines)
        told = {"kind": "say", "worker": "Thinker", "text": "And times 4?"}
        assert server.post(f"/v1/runs/{run}/commands", told).status_code == 202
        server.post(f"/v1/runs/{run}/resume")
        found = deltas([*events, *lines])
        trace = server.events(run)
    heard(trace, "And times 4?")
    assert {kind for kind, _ in found} == {"reasoning_content", "content"}
    for kind in ("reasoning_content", "content"):
        words = "".join(words for one, words in found if one == kind)
        assert "And times 4?" not in words, "the user's words are nobody's answer"
        assert "more from the user" not in words


def heard(trace: list[dict[str, Any]], words: str) -> None:
    """To the thinker in the next ticks, and to the writer as a notice when its turn begins."""
    at = next(number for number, event in enumerate(trace) if event["event"] == "command")
    rows = [row for event in trace[at:] if event["event"] == "tick" for row in event["rows"]]
    given = {name: [row.get("given") or "" for row in rows if row["worker"] == name] for name in ("Thinker", "Writer")}
    assert words in "".join(given["Thinker"][:2])
    assert words not in "".join(given["Writer"])
    assert "There is more from the user now." in "".join(given["Writer"])


def test_a_further_message_of_the_conversation_reaches_both(tmp_path: Path) -> None:
    drawn = {key: long_body(150)[key] for key in ("temperature", "seed", "logit_bias", "kvorum")}
    ask: dict[str, Any] = {"model": "toy:async_reasoning", "max_output_tokens": 400, **drawn}
    body = {**ask, "input": "What is 2+3?", "stream": True}
    with (
        served(toy_engine.fake(name="toy"), tmp_path) as server,
        server.http.stream("POST", "/v1/responses", json=body) as reply,
        ThreadPoolExecutor() as pool,
    ):
        lines = chunks(reply.iter_lines())
        run, (created,) = paused(server, lines)
        more = {**ask, "input": "And times 4?", "previous_response_id": created["response"]["id"]}
        second = pool.submit(server.post, "/v1/responses", more)
        while not any(event["event"] == "command" for event in server.events(run)) and not second.done():
            server.post(f"/v1/runs/{run}/step", {"ticks": 1})
            time.sleep(0.02)
        server.post(f"/v1/runs/{run}/resume")
        *_, end = lines
        trace = server.events(run)
        further = second.result().json()
    heard(trace, "And times 4?")
    texts = [
        [part["text"] for item in made["output"] if item["type"] == "message" for part in item["content"]]
        for made in (end["response"], further)
    ]
    assert texts[0] == texts[1] != []


def test_a_budget_that_ends_in_thoughts_leaves_a_first_word() -> None:
    result = solve(toy_engine.fake(), ticks=12, every=50)
    assert result.outcome == "forced"
    assert result.answer
    assert len(result.workers[1].ids) == 4
