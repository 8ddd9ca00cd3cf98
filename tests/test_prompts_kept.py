"""A trace holds its prompts: replay and resume never make them anew, whatever clock or template say by then."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from kvorum import Budget, Engine, Result, Sampling, Task, programs
from kvorum.backends.fake import FakeBackend
from kvorum.cli import main
from kvorum.engine import text
from kvorum.errors import BadRequest, BadTrace, KvorumError
from kvorum.kv import View
from kvorum.runs.program import Program, program
from kvorum.runs.run import Run
from kvorum.store.events import Event
from kvorum.store.traces import read
from serving import served
from test_templates import QWEN_3, with_template
from tiny_folder import tiny_folder

DATED = (
    "{{ strftime_now('%Y-%m-%d %H:%M:%S') + ' ' }}{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
ASKED = "What is 2 + 2?"


@contextmanager
def clock(hours: int) -> Iterator[None]:
    """So many hours later for runs, by their own clock and by that of chat templates."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2026, 2, 3) + timedelta(hours=hours)

    with (
        patch("kvorum.runs.replay.datetime", Later),
        patch("transformers.utils.chat_template_utils.datetime", Later),
    ):
        yield


def engine(template: Any = DATED) -> Engine:
    tokenizer = with_template(template)
    return Engine(FakeBackend(len(tokenizer), ends=[tokenizer.eos_token_id]), tokenizer)


def ticks(events: list[Event]) -> list[Any]:
    return [
        [(row["worker"], row["fed"], row["token"]) for row in event["rows"]]
        for event in events
        if event["event"] == "tick"
    ]


def prompts(events: list[Event]) -> list[Event]:
    return [event for event in events if event["event"] == "prompt"]


@program("late", "asks again after some ticks", workers=2)
async def late(run: Run) -> str:
    """Prompts before the first tick, between ticks and after a worker has ended, one of them twice."""
    for turn in range(4):
        for worker in run.workers:
            ids = run.chat(("user", f"{run.task.prompt} {turn}"), ("assistant", worker.text[-3:]), ("user", "On?"))
            worker.view = View(run.block(worker.name))
            worker.feed([*worker.pending, *ids])
            before, behind = run.state.prompt("Rules." if turn else None)["around"]
            worker.feed(run.encode(before + behind))
        for _ in range(3):
            await run.tick(run.workers)
    return run.workers[0].text


CASES: list[tuple[Program, dict[str, Any]]] = [
    (programs.solo, {}),
    (programs.vote, {"workers": 3}),
    (programs.hogwild, {"workers": 2}),
    (programs.roleplay, {}),
    (programs.network, {"workers": 3}),
    (programs.relay, {"think": "text"}),
    (programs.tree, {}),
    (late, {}),
]


def play(made: Engine, number: int, **more: Any) -> Result:
    """A run of the case ``number``."""
    chosen, options = CASES[number % len(CASES)]
    dice = random.Random(number)
    return made.run(
        chosen,
        Task(f"{ASKED} {number}"),
        budget=Budget(ticks=dice.randint(8, 40)),
        sampling=Sampling(temperature=dice.choice((0.0, 0.8))),
        seed=number,
        **options,
        **more,
    )


def run(made: Engine, number: int, **more: Any) -> list[Event]:
    """Its events."""
    return play(made, number, **more).trace.events


def cut_and_resume(number: int, folder: Path) -> str:
    """ "same" or "refused": what came of a dated run that was killed at a random byte of its trace."""
    path = folder / f"{number}.jsonl"
    with clock(0):
        whole = run(engine(), number, trace=path)
    data = path.read_bytes()
    path.write_bytes(data[: random.Random(-number).randrange(len(data))])
    hours = random.Random(number).randint(1, 10**5)
    with clock(hours):
        try:
            left = read(path)
        except BadTrace:
            assert b"\n" not in path.read_bytes()  # killed within the first event: nothing was done yet
            return "refused"
        again = run(engine(), number, replay=left, trace=path)
        assert ticks(again) == ticks(whole)
        assert prompts(again) == prompts(whole)
        assert read(path) == json.loads(json.dumps(again))
    with clock(2 * hours):
        assert ticks(run(engine("{{ 'another template' }}"), number, replay=again)) == ticks(whole)
    return "same"


@pytest.mark.parametrize("number", range(10))
def test_a_killed_run_with_a_dated_template_goes_on_the_same(number: int, tmp_path: Path) -> None:
    cut_and_resume(number, tmp_path)


@pytest.mark.slow
def test_two_hundred_killed_runs_with_dated_templates_go_on_the_same(tmp_path: Path) -> None:
    found = [cut_and_resume(number, tmp_path) for number in range(10, 210)]
    assert found.count("same") > 150


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].name)
def test_a_replay_renders_nothing(case: tuple[Program, dict[str, Any]]) -> None:
    number = CASES.index(case)
    with clock(0):
        whole = run(engine(), number)
    assert prompts(whole)
    made = engine()
    with clock(7), patch.object(type(made.tokenizer), "apply_chat_template", side_effect=AssertionError):
        assert run(made, number, replay=whole)[1:-1] == whole[1:-1]


def test_the_prompts_are_what_the_template_made() -> None:
    with clock(0):
        whole = run(engine(), CASES.index((late, {})))
    made, start = engine(), whole[0]
    assert start["event"] == "start"
    assert (start["format"], start["time"]) == (4, "2026-02-03T00:00:00")
    first = prompts(whole)[0]
    assert first["event"] == "prompt"
    told = made.tokenizer.decode(first["ids"])
    assert told.startswith("2026-02-03 00:00:00 <user>What is 2 + 2? 7 0</><assistant></><user>On?</><assistant>")
    around = [event["around"] for event in prompts(whole) if event["event"] == "prompt" and "around" in event]
    begin = "2026-02-03 00:00:00 <system>Rules.</><user>"
    assert around == [["</><user>", "</><assistant>"], [begin, "</><assistant>"]]


def test_a_trace_without_a_prompt_that_the_run_asks_for_is_refused() -> None:
    with clock(0):
        whole = run(engine(), 0)
    for replay, task in (([event for event in whole if event["event"] != "prompt"], f"{ASKED} 0"), (whole, "Another.")):
        with pytest.raises(BadTrace, match="The trace has no prompt of what the run now asks before its tick 0"):
            engine().run(programs.solo, task, replay=replay, seed=0)


def test_a_trace_of_before_says_that_a_dated_prompt_is_another_one() -> None:
    for template, told in ((DATED, True), (QWEN_3, False)):
        start, *rest = run(engine(template), 6)  # it asks for no answer at the end, in words of now
        assert start["event"] == "start"
        start["format"] = 1
        del start["time"]
        old = [start, *(event for event in rest if event["event"] != "prompt")]
        again = play(engine(template), 6, replay=old)
        assert not prompts(again.trace.events)
        assert any("prints the time: the prompt is another one now" in line for line in again.differences) is told


@pytest.mark.parametrize("change", [{"ids": "x"}, {"ids": ["a"]}, {"ids": [True]}, {"ids": 1, "around": ["a"]}])
def test_a_damaged_prompt_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    run(engine(), 0, trace=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    at = [line["event"] for line in lines].index("prompt")
    lines[at] |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadTrace, match=rf"Line {at + 1} .* \(prompt\) lacks its ids"):
        read(path)
    del lines[at]
    lines[0]["time"] = "noon"
    with pytest.raises(KvorumError, match="began at 'noon', which is no time"):
        engine().run(programs.solo, ASKED, replay=lines)


def test_thinking_is_part_of_a_run(tmp_path: Path) -> None:
    told = {}
    for thinking in (None, True, False):
        made = engine(QWEN_3)
        found: list[Event] = []
        made.run(programs.solo, ASKED, budget=Budget(ticks=4), thinking=thinking, listener=found.append)
        (event,) = prompts(found)
        assert event["event"] == "prompt"
        told[thinking] = made.tokenizer.decode(event["ids"])
        assert found[0].get("thinking") is thinking
    assert told[None] == told[True]
    assert told[False] == told[True] + "<think>\n\n</think>\n\n"
    with pytest.raises(BadRequest, match="no switch for thinking"):
        engine().run(programs.solo, ASKED, thinking=True)
    with pytest.raises(BadRequest, match="thinking is True, False or None"):
        engine(QWEN_3).run(programs.solo, ASKED, thinking="no")  # type: ignore[arg-type]


def test_a_request_may_switch_thinking(tmp_path: Path) -> None:
    made = engine(QWEN_3)
    said = [{"role": "user", "content": "Hi?"}]
    with served(made, tmp_path) as server:

        def count(**more: Any) -> int:
            body = {"model": server.model, "messages": said, "max_tokens": 2, **more}
            reply = server.post("/v1/chat/completions", body)
            assert reply.status_code == 200, reply.text
            return int(reply.json()["usage"]["prompt_tokens"])

        plain = len(text.chat(made.tokenizer, said))
        extra = len(text.encode(made.tokenizer, "<think>\n\n</think>\n\n"))
        assert count() == count(chat_template_kwargs={"enable_thinking": True}) == plain
        assert count(chat_template_kwargs={"enable_thinking": False}) == plain + extra
        wrong = {"model": server.model, "messages": said, "chat_template_kwargs": {"mood": 1}}
        assert server.post("/v1/chat/completions", wrong).status_code == 400
        server.until(server.run(thinking=False, budget={"ticks": 2})["id"], "finished")
        (events,) = [server.events(one["id"]) for one in server.http.get("/v1/runs").json()["data"]]
        start, asked = events[0], next(event for event in events if event["event"] == "prompt")
        assert start["thinking"] is False
        assert made.tokenizer.decode(asked["ids"]).endswith("<think>\n\n</think>\n\n")


def test_the_command_takes_thinking_and_replays_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, trace = tiny_folder(tmp_path / "tiny"), tmp_path / "run.jsonl"
    words = ["solve", ASKED, "-m", str(folder), "-p", "solo", "-b", "6", "-q", "--trace", str(trace)]
    assert main([*words, "--no-thinking"]) == 2
    assert "no switch for thinking" in capsys.readouterr().err
    (folder / "chat_template.jinja").write_text(QWEN_3)
    assert main([*words, "--no-thinking"]) in (0, 1)
    assert read(trace)[0].get("thinking") is False
    (folder / "chat_template.jinja").write_text(QWEN_3 + "{{ 'Changed.' }}")
    assert main(["replay", str(trace)]) == 0
    assert "identical" in capsys.readouterr().out
