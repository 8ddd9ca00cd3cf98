"""Loops: the detector against a naive twin that compares whole texts; what it does not take for a loop; what a run
does with a worker that loops, on an engine without a model; how that is shown, traced and repeated.

Not covered: the page's mark (``test_page_words``), rollouts of trees, which have a rule of their own (``test_tree``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from kvorum import Budget, Sampling, Span, View, program, programs
from kvorum.cli.display.lines import lines
from kvorum.cli.display.panes import Frame
from kvorum.cli.display.state import ShownRun, trace_clock
from kvorum.cli.display.summary import print_json, report
from kvorum.runs.loops import LEAST, LONGEST, REPEATS, Loop, LoopDetector
from scripted_workers import notes, solve

ROUND = "I say it again. "


def naive(ids: Sequence[int]) -> list[Loop | None]:
    """By token the loop behind it, found anew from the whole text each time."""

    def repeated(end: int, period: int) -> int:
        count = 0
        while end - count - period >= 0 and ids[end - count] == ids[end - count - period]:
            count += 1
        return count

    found: list[Loop | None] = []
    for end in range(len(ids)):
        now = found[-1] if found else None
        if now is None or not repeated(end, now.period):
            now = None
            for period in range(1, LONGEST + 1):
                count = repeated(end, period)
                if count and count + period >= max(REPEATS * period, LEAST):
                    now = Loop(end - count + 1, period)
                    break
        found.append(now)
    return found


def detected(ids: Sequence[int]) -> list[Loop | None]:
    detector, found = LoopDetector(), []
    for at, token in enumerate(ids):
        detector.add(token, at)
        found.append(detector.loop)
    return found


@st.composite
def texts(draw: st.DrawFn) -> list[int]:
    """Stretches of repeats of some length, broken by other tokens, over few symbols so that periods nest."""
    ids: list[int] = []
    for _ in range(draw(st.integers(1, 4))):
        unit = draw(st.lists(st.integers(0, 2), min_size=1, max_size=draw(st.sampled_from([1, 3, 12, 40]))))
        ids += (unit * (160 // len(unit) + 6))[: draw(st.integers(1, 260))]
        ids += draw(st.lists(st.integers(0, 5), max_size=4))
    return ids


@settings(deadline=None, max_examples=60)
@given(texts())
def test_the_detector_finds_what_comparing_the_whole_text_finds(ids: list[int]) -> None:
    assert detected(ids) == naive(ids)


@pytest.mark.parametrize("period", [1, 2, 23, 24, 25, 100, LONGEST])
def test_a_loop_is_noticed_at_its_least_length_and_not_before(period: int) -> None:
    unit = list(range(1000, 1000 + period))
    whole = max(REPEATS * period, LEAST)
    found = detected([7, 8, 9, *unit * (whole // period + 2)])
    assert found[: 3 + whole - 1] == [None] * (3 + whole - 1)
    assert found[3 + whole - 1] == Loop(3 + period, period)
    assert set(found[3 + whole :]) == {Loop(3 + period, period)}


def test_periods_beyond_the_limit_are_not_noticed() -> None:
    assert set(detected(list(range(LONGEST + 1)) * 6)) == {None}


def test_a_loop_ends_with_the_token_that_breaks_it() -> None:
    found = detected([1, 2, 3] * 40 + [9] + [1, 2, 3] * 10)
    assert found[119] == Loop(3, 3)
    assert found[120:] == [None] * 31


@pytest.mark.parametrize(
    "text",
    [
        "-" * 80,
        "|---|---|---|---|---|---|---|---|---|\n",
        "| a | b | c |\n|---|---|---|\n" + "".join(f"| {n} | {n * n} | {n**3} |\n" for n in range(40)),
        ", ".join(map(str, range(200))),
        "[" + ", ".join(["0"] * 30) + "]",
        "la la la la la, the choir sings, " * 2,
        "".join(f"{n}. Wash the dishes.\n" for n in range(1, 40)),
    ],
)
def test_what_people_write_is_no_loop(text: str) -> None:
    assert set(detected([ord(mark) for mark in text])) == {None}


def test_memory_is_bounded() -> None:
    detector = LoopDetector()
    for at in range(20_000):
        detector.add(at % 3, at)
    sizes = [len(value) for value in vars(detector).values() if hasattr(value, "__len__")]
    assert max(sizes) <= REPEATS * LONGEST


# -- in a run ------------------------------------------------------------------------------------------------------


@program("babble", "writes whatever the script says")
async def babble(run: Any, *, end: bool = False) -> str | None:
    run.loops = "end" if end else "go_on"
    worker = run.workers[0]
    worker.view = View(run.block(worker.name))
    worker.feed(run.encode(run.task.prompt))
    while not run.spent and worker.active and len(worker.ids) < 300:
        await run.tick([worker])
    return str(worker.text)


def test_a_loop_stands_in_the_trace_once_when_it_begins_and_once_when_it_ends() -> None:
    script = "Hm:" + ROUND * 8 + "Enough of that" + "." * 200
    result, _ = solve(babble, "?", {"Alice": [script]})
    assert notes(result, "loop") == [
        {"worker": "Alice", "since": 3 + 16, "period": 16, "ended": False},
        {"worker": "Alice", "until": 3 + 8 * 16},  # what comes first is the E of "Enough", not an I
        {"worker": "Alice", "since": script.index("...") + 1, "period": 1, "ended": False},
    ]
    assert result.workers[0].loop == Loop(script.index("...") + 1, 1)


def test_a_text_that_ends_is_no_loop_with_the_next() -> None:
    result, _ = solve(babble, "?", {"Alice": ["Yes, I agree."] * 20})
    assert notes(result, "loop") == []


def test_a_program_may_end_a_worker_that_loops() -> None:
    result, run = solve(babble, "?", {"Alice": [ROUND * 50]}, end=True)
    assert len(result.workers[0].ids) == LEAST
    assert not run.workers[0].active
    assert notes(result, "loop") == [{"worker": "Alice", "since": 16, "period": 16, "ended": True}]


@pytest.mark.parametrize(
    ("name", "params", "tokens", "outcome"),
    [
        ("plain", {}, 300, "cut"),
        ("plain", {"loops": "end"}, LEAST, "cut"),
        ("solo", {"answer": "text"}, LEAST, "cut"),
        ("solo", {"answer": "text", "loops": "go_on"}, 300, "cut"),
    ],
)
def test_programs_go_on_or_end(name: str, params: dict[str, Any], tokens: int, outcome: str) -> None:
    result, _ = solve(programs.find(name), "?", {"Alice": [ROUND * 50]}, budget=Budget(ticks=300), **params)
    assert (len(result.workers[0].ids), result.outcome) == (tokens, outcome)
    assert result.answer == result.workers[0].text.strip()


def test_whoever_loops_is_asked_for_its_answer() -> None:
    result, _ = solve(programs.solo, "?", {"Alice": [ROUND * 6 + "42}"]}, final_tokens=8)
    assert (result.answer, result.outcome, result.spent) == ("42", "forced", None)
    assert len(result.workers[0].ids) == LEAST + 3


def test_a_voter_that_loops_waits_for_the_others() -> None:
    words = {"Alice": ["x" * 400], "Bob": ["Let me see. " + "abc" * 7 + "It is \\boxed{4}."]}
    result, _ = solve(programs.vote, "?", words, workers=2, final_tokens=4)
    assert len(result.workers[0].ids) == LEAST + 4
    assert notes(result, "votes")[0]["answers"]["Bob"] == "4"


def test_a_hogwild_worker_that_loops_leaves_and_takes_its_circles_along() -> None:
    words = {"Alice": ["x" * 400], "Bob": ["y" * 110 + ".\n\nSo it is \\boxed{4}.\n\n"]}
    _, run = solve(programs.hogwild, "?", words, workers=2, loops="end")
    alice, bob = run.workers
    assert len(alice.ids) == LEAST
    assert len(bob.ids) >= LEAST
    history = run.workers[-1].view.items[0]
    assert isinstance(history, Span)
    assert "xxx" not in "".join(map(chr, history.block.ids))


def test_an_answer_that_goes_in_circles_is_cut() -> None:
    sampling = Sampling(temperature=0.0, logit_bias={ord("x"): 100.0})
    result, _ = solve(programs.ask, "?", questions=["How?", "How many?"], sampling=sampling)
    assert [(one.finish, one.text) for one in result.product.answers] == [("loop", "x" * LEAST)] * 2
    result, _ = solve(programs.ask, "?", questions=["How?"], sampling=sampling, loops="go_on", tokens=200)
    assert [(one.finish, one.text) for one in result.product.answers] == [("length", "x" * 200)]


def test_a_resumed_run_says_the_same_and_one_of_before_says_nothing() -> None:
    words = {"Alice": [ROUND * 50]}
    first, _ = solve(programs.solo, "?", words, final_tokens=8)
    again, _ = solve(programs.solo, "?", words, final_tokens=8, replay=first.trace.events)
    assert notes(again, "loop") == notes(first, "loop") != []
    old = [dict(event) for event in first.trace.events if event["event"] in ("start", "prompt")]
    old[0]["format"] = 3
    before, _ = solve(programs.solo, "?", words, final_tokens=8, replay=old, budget=Budget(ticks=200))
    assert notes(before, "loop") == []
    assert before.ledger.ticks == 200


# -- as people see it ----------------------------------------------------------------------------------------------


def shown(result: Any) -> ShownRun:
    state = ShownRun(clock=trace_clock)
    for event in result.trace.events:
        state.feed(event)
    return state


@pytest.fixture(scope="module")
def looped() -> Any:
    return solve(programs.solo, "?", {"Alice": [ROUND * 50]}, answer="text")[0]


def test_panes_name_it(looped: Any) -> None:
    state = ShownRun(clock=trace_clock)
    for event in looped.trace.events[:-1]:
        state.feed(event)
    for width in (24, 40, 80):
        console = Console(width=width, height=8, legacy_windows=False)
        with console.capture() as capture:
            console.print(Frame(state))
        assert ("looping since tick 16" in capture.get()) == (width >= 31)


def test_lines_name_it(looped: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with lines(ShownRun(clock=trace_clock)) as show:
        for event in looped.trace.events:
            show(event)
    assert "Alice · looping since tick 16, so it was ended\n" in capsys.readouterr().out


def test_the_summary_gives_it_as_the_reason(looped: Any, capsys: pytest.CaptureFixture[str]) -> None:
    report(shown(looped), Console(width=100), seconds=1.0, trace=None)
    assert "how    cut: Alice was looping since tick 16\n" in capsys.readouterr().out
    print_json(shown(looped), seconds=1.0, trace=None)
    found = json.loads(capsys.readouterr().out)
    assert found["workers"][0]["looping"] == {"since": 16, "period": 16, "ended": True}
    assert found["outcome"] == "cut"


def test_a_forced_answer_says_why_it_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    result, _ = solve(programs.solo, "?", {"Alice": [ROUND * 50]}, final_tokens=8)
    report(shown(result), Console(width=100), seconds=1.0, trace=None)
    assert "how    Alice was looping since tick 16, so Alice had to answer\n" in capsys.readouterr().out
