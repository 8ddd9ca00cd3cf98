"""The programs hogwild, solo and vote: what each worker sees, how steps move, how runs end, are steered and replayed.

Workers are scripted: what they may pick is the next byte of a given text, so that the protocol is tested on a tiny
random model with exact expectations. Covers the three layouts for 1 to 8 workers, moves, checks, early finish, forced
answers both ways, joining, leaving, injected text, replay and resumption of a cut trace, and finding answers in text.
Not covered: that views are computed exactly (test_forward_oracle.py, test_exactness.py), and what a real model makes of
the prompts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import toy_engine
from kvorum import Budget, Command, Engine, Result, Row, Run, Worker, programs
from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.answers import BOXED, CODE, boxed, code, extract
from kvorum.programs.hogwild import prompts
from kvorum.store.events import note_data
from kvorum.store.traces import read
from kvorum.tasks.scoring import normalised

ENGINE = toy_engine.engine()
END = ENGINE.tokenizer.eos_token_id
HEAD: dict[str, Any] = {"openings": False, "suppress_markup": False, "rules": "published"}


def follow(worker: Worker, text: str, then: int | None = None) -> None:
    """Let ``worker`` write ``text``, then ``then`` (a token), then full stops."""
    ids = ENGINE.tokenizer(text, add_special_tokens=False)["input_ids"] + ([] if then is None else [then])
    dot = ENGINE.tokenizer(".", add_special_tokens=False)["input_ids"][0]
    written = worker.ids  # not the worker: a cycle would keep its blocks' pages until the collector comes

    def allow(logits: Tensor) -> Tensor:
        mask = torch.zeros(len(logits), dtype=torch.bool)
        mask[ids[len(written)] if len(written) < len(ids) else dot] = True
        return mask

    worker.allow = allow


def play(
    program: Any, texts: Sequence[str], *, ticks: int = 60, ends: int | None = None, **options: Any
) -> tuple[Result, Run]:
    """Run ``program`` with one scripted worker per text; also returns the run."""
    runs: list[Run] = []
    steer: Callable[[Run], None] | None = options.pop("steer", None)

    def control(run: Run) -> None:
        runs.append(run)
        for worker, text in zip(run.workers, texts, strict=True):
            follow(worker, text, ends)
        if steer is not None:
            steer(run)

    result = ENGINE.run(
        program, "Count.", workers=len(texts), budget=Budget(decoded=ticks * len(texts)), control=control, **options
    )
    return result, runs[0]


def views(result: Result, worker: str) -> list[list[str]]:
    """The blocks of each view that the trace tells of."""
    return [
        [item[0] for item in event["items"]]
        for event in result.trace.events
        if event["event"] == "view" and event["worker"] == worker
    ]


# -- what each worker sees ----------------------------------------------------------------------------------------


@pytest.mark.forward
@pytest.mark.parametrize("workers", range(1, 9))
def test_combined_views(workers: int) -> None:
    result, run = play(programs.hogwild, ["Hm"] * workers, ticks=4, **HEAD)
    names = [worker.name for worker in run.workers]
    for name in names:
        others = [f"{other}.1" for other in names if other != name]
        between = [part for at, other in enumerate(others) for part in ([f"mark{at - 1}", other] if at else [other])]
        assert views(result, name)[0] == ["history", "others", *between, "own", f"{name}.1"]
    assert result.spent == "decoded"


@pytest.mark.forward
def test_interleaved_and_contiguous_views() -> None:
    interleaved, _ = play(programs.hogwild, ["One.\n\nTwo", "x", "y"], ticks=18, layout="interleaved", **HEAD)
    assert views(interleaved, "Alice") == [["history", "own", "Alice.1"], ["history", "own", "Alice.2"]]
    assert views(interleaved, "Bob")[-1] == ["history", "own", "Bob.1"]
    contiguous, run = play(programs.hogwild, ["One.\n\nTwo", "x"], ticks=18, layout="contiguous", **HEAD)
    assert views(contiguous, "Bob") == [["history", "others", "Alice.1", "own", "Bob.1"]]
    assert not [event for event in contiguous.trace.events if event["event"] == "move"]
    own = run.workers[0].view.own
    assert own is not None
    assert run.read(own.ids).startswith("\n\n**Alice [1]:** One.\n\n**Alice [2]:** Two")


# -- steps --------------------------------------------------------------------------------------------------------


@pytest.mark.forward
def test_a_finished_step_moves_to_the_history() -> None:
    result, run = play(programs.hogwild, ["One.\n\nTwo", "Red.\n\nBlue"], ticks=14, **HEAD)
    history = run.workers[0].view.items[0].block  # type: ignore[union-attr]
    text = run.read(history.ids)
    # the empty line's last token was not in the cache yet: it begins the next block (paper, 1.5)
    assert text.endswith("### Past steps\n\n**Alice [1]:** One.\n\n\n**Bob [1]:** Red.\n")
    own = run.workers[0].view.own
    assert own is not None
    assert run.read(own.ids).startswith("\n**Alice [2]:** Two")
    moves = [event for event in result.trace.events if event["event"] == "move"]
    assert [(move["worker"], move["into"]) for move in moves] == [("Alice", "history"), ("Bob", "history")]
    assert views(result, "Bob")[-1] == ["history", "others", "Alice.2", "own", "Bob.2"]


@pytest.mark.forward
def test_the_redundancy_check_comes_at_its_interval() -> None:
    steps = "One.\n\nTwo.\n\nThree.\n\nFour.\n\n"
    asked, _ = play(programs.hogwild, [steps, "x" * 60], ticks=45, check_every=20, **HEAD)
    never, _ = play(programs.hogwild, [steps, "x" * 60], ticks=45, check_every=0, **HEAD)

    def checks(result: Result) -> list[str]:
        notes = [event for event in result.trace.events if event["event"] == "note" and event["kind"] == "check"]
        return [str(note_data(note)["worker"]) for note in notes]

    assert checks(asked) == ["Alice", "Alice"]
    assert checks(never) == []
    given = [row.get("given", "") for e in asked.trace.events if e["event"] == "tick" for row in e["rows"]]
    assert sum(prompts.CHECK in text for text in given) == 2


def test_the_sixteen_published_marks_end_a_sentence() -> None:
    published = [".", "?", "!", "。", "۔", "؟", "।", "॥", "…", "‽", "።", "᠃", "։", "჻", "¶", "❧"]
    assert all(prompts.step_ends(f"It is so{mark}\n\n", 1) for mark in published)


@pytest.mark.parametrize(
    ("text", "sentence", "line"),
    [
        ("It is so.\n\n", True, True),
        ("It is so。\n\n", True, True),
        ("It is so.\n", False, False),
        ("It is 4\n\n", False, True),
        ("```python\nx = 1.\n\n", False, False),
        ("```python\nx = 1.\n```\n\n", False, True),
        ("$$ a.\n\n", False, False),
        ("$$ a $$.\n\n", True, True),
        ("So.  \n\n", True, True),
    ],
)
def test_where_a_step_ends(text: str, sentence: bool, line: bool) -> None:
    assert prompts.step_ends(text, 1) == sentence
    assert prompts.step_ends(text, 1, sentence=False) == line
    assert not prompts.step_ends(text + "And so it goes on", 2, sentence=False)


# -- how runs end -------------------------------------------------------------------------------------------------


@pytest.mark.forward
def test_an_answer_in_a_finished_step_ends_the_run() -> None:
    result, _ = play(programs.hogwild, ["x" * 50, "It is \\boxed{42}.\n\nMore"], ticks=50, **HEAD)
    assert (result.answer, result.outcome, result.spent) == ("42", "answered", None)
    assert len(result.workers[1].text) == len("It is \\boxed{42}.\n\n")
    unfinished, _ = play(programs.hogwild, ["x" * 90, "It is \\boxed{42}. And so on"], ticks=40, **HEAD)
    assert unfinished.outcome == "cut"  # the question for it came to the budget's end
    assert unfinished.ledger.decoded <= 80


@pytest.mark.forward
def test_workers_that_end_their_text_leave_their_step_to_the_team() -> None:
    result, run = play(programs.hogwild, ["Bye", "Me too"], ends=END, **HEAD)
    assert result.outcome == "forced"
    assert result.spent is None
    history = run.workers[0].view.items[0].block  # type: ignore[union-attr]
    assert run.read(history.ids).endswith("### Past steps\n\n**Alice [1]:** Bye\n\n**Bob [1]:** Me too")
    assert [block.name for block in run.workers[1].view.blocks] == ["history", "final"]
    stays, _ = play(programs.hogwild, ["Bye", "x"], ends=None, ticks=9, suppress_end=True, **HEAD)
    assert all(END not in worker.ids[:9] for worker in stays.workers)


@pytest.mark.forward
@pytest.mark.parametrize("final", ["cache", "reencode"])
def test_forced_answers(final: str) -> None:
    """The finisher is fed the demand, behind what it sees, or behind all text encoded afresh."""
    texts = ["One.\n\nTwo", "Three"]
    result, run = play(programs.hogwild, texts, ticks=12, final=final, final_tokens=5, **HEAD)
    assert (result.outcome, result.spent) == ("forced", "decoded")
    assert result.ledger.decoded <= 12 * 2
    own = run.workers[1].view.own
    assert own is not None
    seen = run.read(own.ids)
    assert BOXED.demand.strip() in seen
    if final == "reencode":
        assert len(run.workers[1].view.items) == 1
        whole = seen[seen.index(prompts.PAST) :]
        assert "**Alice [1]:** One." in whole
        assert f"{prompts.OTHERS}" in whole
        assert f"**Bob [1]:** Three.{'.' * 6}"[:20] in whole
        assert whole.count(prompts.UNFINISHED) == 2


@pytest.mark.forward
def test_a_budget_below_the_set_up_gives_no_answer_and_says_so() -> None:
    result = ENGINE.run(programs.hogwild, "Count.", workers=3, budget=Budget(ticks=1), final_tokens=2)
    assert (result.answer, result.outcome, result.spent) == (None, "none", "ticks")
    assert result.ledger.ticks <= 1


@pytest.mark.forward
def test_unknown_parameters_are_named() -> None:
    with pytest.raises(UnknownName, match="combined, interleaved, contiguous"):
        ENGINE.run(programs.hogwild, "Count.", layout="circle")
    with pytest.raises(BadRequest, match="no parameter 'lay_out'"):
        ENGINE.run(programs.hogwild, "Count.", lay_out="combined")
    with pytest.raises(BadRequest, match="empty"):
        ENGINE.run(programs.solo, "  \n")
    for workers in (0, 65):
        with pytest.raises(BadRequest, match=f"{workers} workers"):
            ENGINE.run(programs.hogwild, "Count.", workers=workers)
    with pytest.raises(BadRequest, match="differ"):
        ENGINE.run(programs.hogwild, "Count.", workers=["A", "A"])


# -- steering, replay, resumption ---------------------------------------------------------------------------------


def steered(run: Run) -> None:
    """After the second tick: one joins, one is told something; later one leaves; later the answer is asked for."""
    tick = run.tick
    asked = {
        2: [Command("join", "Zoe"), Command("say", "Alice", "Look out. ")],
        5: [Command("leave", "Bob")],
        11: [Command("answer")],
    }

    async def then(workers: Sequence[Worker], also: Sequence[Row] = ()) -> None:
        await tick(workers, also)
        done = len([event for event in run.trace.events if event["event"] == "tick"])
        for worker in run.workers:
            if worker.name == "Zoe" and worker.allow is None:
                follow(worker, "zzz")
        if not run.state.replaying:
            run.commands.extend(asked.get(done, ()))

    run.tick = then  # type: ignore[method-assign]


@pytest.mark.forward
def test_workers_join_and_leave_and_are_spoken_to(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    options: dict[str, Any] = {"final_tokens": 3, "steer": steered, **HEAD}
    result, run = play(programs.hogwild, ["a" * 90, "b" * 90], ticks=60, trace=file, **options)
    assert [worker.name for worker in run.workers] == ["Alice", "Bob", "Zoe"]
    assert views(result, "Zoe")[0] == ["history", "others", "Alice.1", "mark0", "Bob.1", "own", "Zoe.1"]
    assert views(result, "Alice")[-1] == ["history", "others", "Zoe.1", "own", "Alice.1"]
    own = run.workers[0].view.own
    assert own is not None
    assert "Look out. " in run.read(own.ids)
    history = run.workers[0].view.items[0].block  # type: ignore[union-attr]
    assert run.read(history.ids).endswith("**Bob [1]:** bbbb")
    assert len(result.workers[1].ids) == 5
    again, _ = play(programs.hogwild, ["a" * 90, "b" * 90], ticks=60, replay=read(file), **options)
    assert again.differences == []
    assert [w.ids for w in again.workers] == [w.ids for w in result.workers]


@pytest.mark.forward
def test_a_refused_command_does_not_end_the_run() -> None:
    def steer(run: Run) -> None:
        run.commands.append(Command("join", "Alice"))

    result, run = play(programs.hogwild, ["x" * 30], ticks=6, final_tokens=2, steer=steer, **HEAD)
    assert len(run.workers) == 1
    refused = [e for e in result.trace.events if e["event"] == "note" and e["kind"] == "refused"]
    assert "Alice already" in str(note_data(refused[0])["why"])


@pytest.mark.forward
@pytest.mark.parametrize("program", [programs.solo, programs.vote, programs.hogwild], ids=lambda p: p.name)
def test_a_replay_is_identical_and_a_cut_run_resumes(program: Any, tmp_path: Path) -> None:
    count = min(3, program.most_workers)
    options: dict[str, Any] = {"workers": count, "budget": Budget(ticks=30), "final_tokens": 4, "seed": 7}
    file = tmp_path / "run.jsonl"
    whole = ENGINE.run(program, "Count.", trace=file, **options)
    replayed = ENGINE.run(program, "Count.", replay=read(file), **options)
    assert replayed.differences == []
    assert [w.ids for w in replayed.workers] == [w.ids for w in whole.workers]
    lines = file.read_text().splitlines(keepends=True)
    ticks = [at for at, line in enumerate(lines) if json.loads(line)["event"] == "tick"]
    for cut in (ticks[0], ticks[len(ticks) // 2], ticks[-1]):
        file.write_text("".join(lines[:cut]) + lines[cut][:17])  # killed while it wrote
        resumed = ENGINE.run(program, "Count.", replay=read(file), trace=file, **options)
        assert [w.ids for w in resumed.workers] == [w.ids for w in whole.workers]
        assert resumed.answer == whole.answer
        assert [e["event"] for e in read(file)] == [json.loads(line)["event"] for line in lines]


@pytest.mark.forward
def test_a_replay_tells_where_it_differs(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    ENGINE.run(programs.solo, "Count.", budget=Budget(ticks=9), final_tokens=2, trace=file)
    events = read(file)
    event = next(e for e in events if e["event"] == "tick" and e["n"] == 4)
    event["rows"][0]["token"] = (event["rows"][0]["token"] + 1) % 200
    result = ENGINE.run(programs.solo, "Count.", budget=Budget(ticks=9), final_tokens=2, replay=events)
    assert result.differences[0].startswith("tick 4, Alice")


@pytest.mark.forward
def test_runs_at_once_share_ticks_and_do_not_meddle() -> None:
    import asyncio

    from kvorum.runs.start import arun

    def run(seed: int) -> Any:
        return arun(ENGINE, programs.hogwild, f"Count to {seed}.", workers=2, budget=Budget(ticks=20), seed=seed)

    async def together() -> list[Result]:
        return list(await asyncio.gather(run(1), run(2), run(3)))

    alone = [asyncio.run(run(seed)) for seed in (1, 2, 3)]
    before = ENGINE.ledger.ticks
    shared = asyncio.run(together())
    assert ENGINE.ledger.ticks - before < sum(result.ledger.ticks for result in shared) / 2
    for one, other in zip(alone, shared, strict=True):
        assert [w.ids for w in one.workers] == [w.ids for w in other.workers]
        assert one.ledger.tokens == other.ledger.tokens


# -- solo, vote, answers ------------------------------------------------------------------------------------------


@pytest.mark.forward
def test_solo_answers_by_itself_or_by_force() -> None:
    said, _ = play(programs.solo, ["So \\boxed{7}"], ends=END)
    assert (said.answer, said.outcome) == ("7", "answered")
    forced, _ = play(programs.solo, ["x" * 99], ticks=12, final_tokens=3)
    assert forced.outcome == "forced"
    plain, _ = play(programs.solo, ["All of it."], ends=END, answer="text")
    assert plain.answer == "All of it."


@pytest.mark.forward
def test_vote_takes_the_commonest_answer() -> None:
    result, run = play(programs.vote, [r"\boxed{4}", r"\boxed{5}", r"\boxed{ 5.0 }", r"\boxed{4}"], ends=END)
    assert result.answer == "4", "a tie goes to the answer whose first voter stands first"
    most, _ = play(programs.vote, [r"\boxed{4}", r"\boxed{5}", r"\boxed{ 5.0 }"], ends=END)
    assert most.answer == "5"
    assert {worker.view.blocks[0].name for worker in run.workers} == {"prompt"}
    assert result.ledger.prefill < 2 * len(run.chat(("user", "Count."))) + 200


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} no, \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{7} then \boxed{unfinished", "7"),
        (r"\boxed{3} then \boxed{} and \boxed{...}", "3"),
        (r"\boxed {8}", "8"),
        ("nothing", None),
    ],
)
def test_boxed(text: str, answer: str | None) -> None:
    assert boxed(text) == answer
    assert extract(text, BOXED) == answer


def test_code_is_parsed_and_never_run() -> None:
    assert code("```python\nx = 1\n```\n```python\nx = = 2\n```") == "x = 1"
    assert extract("```\nimport os; os.abort()\n```", CODE) == "import os; os.abort()"
    assert code("```js\nlet x\n```") is None


def test_normalised() -> None:
    assert normalised("1,200 $") == normalised("1200.0") == normalised(r"\text{1200}.")
    assert normalised("Paris") == normalised("paris.")
    assert normalised("1,2") != normalised("12")


@pytest.mark.forward
def test_the_engine_gives_its_pages_back() -> None:
    engine: Engine = toy_engine.engine(kv_tokens=4096)
    free = engine.pool.free
    engine.run(programs.hogwild, "Count.", workers=4, budget=Budget(ticks=25), final_tokens=3)
    assert engine.pool.free == free
