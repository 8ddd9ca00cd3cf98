"""thread: what leaves the cache and what that does, against a dense oracle; and that no document can break a run."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import local_backend
import toy_engine
from kvorum import Budget, Engine, Row, Run, Sampling, View, program
from kvorum.engine.row import CheckedRow
from kvorum.engine.tick_result import TickResult
from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.live_text import Cut, Live, Mode
from kvorum.programs.thread.thread import thread
from kvorum.programs.thread.writer import TaskWriter
from kvorum.store.traces import read
from thread_documents import DOCUMENT, notes, uses


@pytest.fixture(scope="module")
def llama() -> Any:
    return toy_engine.model(positions=256)


@pytest.fixture
def exact(llama: Any) -> Engine:
    return Engine(llama, toy_engine.tokenizer(), kv_tokens=4096, page_size=4)


@pytest.fixture
def engine() -> Engine:
    return toy_engine.fake(kv_tokens=4096)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No instructions before the problem, so that the document is most of what there is."""
    monkeypatch.setattr(importlib.import_module("kvorum.programs.thread.thread"), "instructions", lambda rules: "")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TaskWriter, torch.Tensor]]:
    """(line, logits) of every pick."""
    found: list[tuple[TaskWriter, torch.Tensor]] = []
    inner = TaskWriter.allow

    def allow(line: TaskWriter, logits: torch.Tensor) -> torch.Tensor | None:
        found.append((line, logits.clone()))
        return inner(line, logits)

    monkeypatch.setattr(TaskWriter, "allow", allow)
    return found


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


# -- the cache --------------------------------------------------------------------------------------------------


SETTINGS = [(0, "list", ""), (0, "conclusion", "~~"), (1, "list", "~")]


@pytest.mark.parametrize(
    ("mode", "buffer", "trigger", "stub"),
    [
        pytest.param(mode, *setting, marks=[] if (at + of) % 3 == 0 else pytest.mark.slow)
        for at, mode in enumerate(("reencode", "splice", "gap"))
        for of, setting in enumerate(SETTINGS)
    ],
)
def test_every_pick_equals_the_dense_forward(
    exact: Engine, bare: None, seen: Any, mode: str, buffer: int, trigger: str, stub: str
) -> None:
    options: dict[str, Any] = {"mode": mode, "buffer": buffer, "trigger": trigger, "stub": stub}
    result = exact.run(thread, "p", budget=Budget(ticks=999), script={"": [DOCUMENT]}, **options)
    assert result.answer == "42"
    log, prunes = seen[0][0].live.log, notes(result, "prune")
    assert len(prunes) == 3 - buffer
    assert {prune["left"] for prune in prunes} == {"forgotten" if mode == "reencode" else "hidden"}
    base, left = exact.tokenizer("p\n\n")["input_ids"], exact.tokenizer(stub)["input_ids"] if stub else []
    account, rows = toy_engine.Account(), []
    account.feed(base, [-1] * len(base))
    for at, token in enumerate(log):
        rows.append(account.live[-1])
        for prune in prunes:
            if prune["at"] == at + 1:
                start = account.position(prune["lo"] - 1) + 1
                end = account.position(prune["hi"]) if prune["hi"] < at else len(account.live)
                account.prune(start, end, mode, left)
        account.feed([token], [at])
    close(torch.stack([logits for _, logits in seen]), account.logits(toy_engine.llama(exact))[rows])


def test_after_reencode_the_cache_is_that_of_a_fresh_run(exact: Engine, bare: None, seen: Any) -> None:
    exact.run(thread, "p", budget=Budget(ticks=999), buffer=0, script={"": [DOCUMENT]})
    kept = seen[0][0].live.view.ids
    text = DOCUMENT.replace('{"thought":"a","conclusion":"one"},{"thought":"b [x]","conclusion":"2"}', "")
    text = text.replace('{"thought":"c","subtasks":[{"thought":"deep","conclusion":"d"}],"conclusion":"e"}', "")
    assert exact.tokenizer.decode(kept) == "p\n\n" + text.removesuffix('"}')  # the last token is not fed
    close(seen[-1][1], exact.forward([Row(View(exact.block()), ids=kept)]).logits[0])


@pytest.mark.parametrize("mode", ["reencode", "splice", "gap"])
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_random_edits_equal_the_dense_forward(exact: Engine, mode: Mode, seed: int) -> None:
    """Spans of any place and number, nested, with and without stubs, undone in any order, kept or encoded anew."""
    dice, keep = random.Random(seed), seed % 2 == 0

    @program("probe", "edits in a row")
    async def probe(run: Run) -> str:
        live, account = Live(run, "probe", View(run.block("probe"))), toy_engine.Account()
        made: list[tuple[Cut, list[Any], list[int]]] = []
        rows, found = [], []
        for step in range(24):
            kind = dice.choice(["write", "write", "open", "prune", "undo"])
            every = [account.label[row] for row in account.live if row is not None]
            labels = [label for label in every if label is not None]
            if kind == "write" or not labels or step == 23:
                ids = [dice.randrange(200) for _ in range(dice.randint(1, 6))]
                live.log += ids
                found.append(await run.forward([Row(live.view, ids=ids)], [COST]))
                account.feed(ids, list(range(len(live.log) - len(ids), len(live.log))))
                rows.append(account.live[-1])
            elif kind == "open":
                live.open_block()
            elif kind == "prune":
                lo, last = sorted(dice.choices(labels, k=2))
                stub = [dice.randrange(200)] * dice.randint(0, 2)
                cuts = await live.prune([(lo, last + 1)], mode, stub, keep)
                if cuts:
                    gone = account.prune(account.position(lo), account.position(last) + 1, mode, stub)
                    made.append((cuts[0], gone, list(range(lo, last + 1))))
            elif active := [entry for entry in made if entry[0] in live.cuts]:
                cut, gone, inside = dice.choice(active)
                start = live.position(cut.lo)
                if not keep:
                    gone = account.feed([live.log[at] for at in inside], inside, account.live[:start])
                account.restore(start, cut.width, gone, mode)
                await live.undo(cut, mode)
            assert len(live.view) == len(account.live)
        oracle = account.logits(toy_engine.llama(exact))
        close(torch.stack([reply.output.logits[0] for reply in found]), oracle[rows])
        return str(len(made))

    assert int(exact.run(probe, "p", budget=Budget(ticks=999)).answer or 0) > 0


COST = importlib.import_module("kvorum.engine.row").Cost()


def test_a_prune_and_its_undo_move_nothing(exact: Engine) -> None:
    """Splice, gap, undo, fork and hand-over are edits of views: no page is taken, no key or value is written."""

    @program("probe", "edits in a row")
    async def probe(run: Run) -> str:
        live = Live(run, "probe", View(run.block("probe")))
        for _ in range(3):
            live.log += list(range(40))
            await run.prefill(live.view, list(range(40)))
            live.open_block()
        pool, kv, ledger = run.engine.pool, local_backend.cache(run.engine), run.ledger.as_dict()
        state = [(t.data_ptr(), t._version, t.clone()) for t in (*kv.keys, *kv.values)]
        free = pool.free
        for mode in ("splice", "gap"):
            (cut,) = await live.prune([(30, 70)], mode)
            await live.undo(cut, mode)
        child = Live(run, "child", live.view.fork(77, run.block("child")))
        live.adopt(child)
        View(*live.view.items, run.block("other"))
        for tensor, (place, writes, content) in zip((*kv.keys, *kv.values), state, strict=True):
            assert (tensor.data_ptr(), tensor._version) == (place, writes)
            assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(content))
        assert pool.free == free
        assert run.ledger.as_dict() == ledger
        return "done"

    assert exact.run(probe, "p").answer == "done"


def test_pruned_pages_return_unless_kept(exact: Engine) -> None:
    @program("probe", "edits in a row")
    async def probe(run: Run, *, keep: bool = False) -> str:
        live = Live(run, "probe", View(run.block("probe")))
        for _ in range(3):
            live.log += list(range(40))
            await run.prefill(live.view, list(range(40)))
            live.open_block()
        free = run.engine.pool.free
        await live.prune([(40, 80)], "splice", (), keep)
        return str(run.engine.pool.free - free)

    assert exact.run(probe, "p").answer == "10"
    assert exact.run(probe, "p", keep=True).answer == "0"


def test_a_run_longer_than_the_trained_context(exact: Engine, bare: None, seen: Any) -> None:
    """The log outgrows the model's 256 positions; no query is ever further than that from a key."""
    task = '{"thought":"s","subtasks":[{"thought":"' + "work " * 13 + '","conclusion":"done"}],"conclusion":"k"}'
    document = '{"reasoning":[' + ",".join([task] * 3) + '],"answer":"x"}'
    longest = 0
    inner = exact.executor.run

    def tick(rows: Sequence[CheckedRow], hidden: bool = False) -> TickResult:
        nonlocal longest
        done = inner(rows, hidden)
        longest = max(longest, *(len(row.view) for row in rows))
        return done

    exact.executor.run = tick  # type: ignore[method-assign]
    result = exact.run(thread, "p", budget=Budget(ticks=2000), buffer=0, script={"": [document]})
    limit = toy_engine.llama(exact).config.max_position_embeddings
    assert result.answer == "x"
    assert notes(result, "thread")[0]["tokens"] > 1.5 * limit
    assert longest <= limit
    plain = exact.model(torch.tensor([seen[0][0].live.view.ids])).logits[0, -1]
    torch.testing.assert_close(seen[-1][1], plain, rtol=0, atol=1e-4)  # transformers' angles are in float32


def test_parallel_siblings_are_forks_that_are_joined(exact: Engine, bare: None, seen: Any) -> None:
    """Each sees what stood before the fork and itself; after the join all stand in a row, none encoded again."""
    script = {
        "": ['{"reasoning":[{"thought":"p","plan":["x","y"]', ',"conclusion":"both"}],"answer":"9"}'],
        "x": ['"thought":"first of them","conclusion":"1"}'],
        "y": ['"thought":"2nd","conclusion":"2"}'],
    }
    result = exact.run(thread, "p", budget=Budget(ticks=999), siblings="forks", buffer=1, script=script)
    assert result.answer == "9"
    document = notes(result, "thread")[0]["document"]
    tasks = json.loads(document)["reasoning"][0]["subtasks"]
    assert [task["title"] for task in tasks] == ["x", "y"]
    assert [worker.name for worker in result.workers] == ["Alice", "Alice.1", "Alice.2"]
    ticks = [[row["worker"] for row in event["rows"]] for event in result.trace.events if event["event"] == "tick"]
    assert ["Alice.1", "Alice.2"] in ticks
    lines = {line.worker.name: line for line, _ in seen}
    root, children = lines["Alice"], [lines["Alice.1"], lines["Alice.2"]]
    base = exact.tokenizer("p\n\n")["input_ids"]
    shared = document.index("[", document.index("subtasks"))
    ends = [len(exact.tokenizer.decode(root.live.log[: at + 1])) for at in range(len(root.live.log))]
    head = ends.index(shared + 1)
    account = toy_engine.Account()
    rows: dict[str, list[int | None]] = {}
    account.feed(base + root.live.log[: head + 1], [None] * (len(base) + head + 1))
    rows["Alice"] = account.live[len(base) - 1 :][: len([1 for line, _ in seen if line is root])]
    fork, joined = list(account.live), list(account.live)
    for child in children:
        view = list(fork)
        fed = account.feed(child.live.log, [None] * len(child.live.log), view)
        rows[child.worker.name] = fed
        joined += fed
    account.live = joined
    behind = root.live.log[head + 1 + sum(len(child.live.log) for child in children) :]
    rows["after"] = account.feed(behind, [None] * len(behind))
    oracle = account.logits(toy_engine.llama(exact))
    for child in children:
        found = torch.stack([logits for line, logits in seen if line is child])
        start = len(child.live.log) - len(found) - 1 - (child is children[0])
        close(found, oracle[rows[child.worker.name][start : start + len(found)]])
    own = [logits for line, logits in seen if line is root]
    found = torch.stack(own[-len(behind) + 1 :])
    close(found, oracle[rows["after"][: len(found)]])


# -- tools ------------------------------------------------------------------------------------------------------


def test_recall_brings_a_pruned_list_back(exact: Engine, bare: None, seen: Any) -> None:
    first = '{"thought":"a","subtasks":[{"thought":"b","conclusion":"secret"}],"conclusion":"c"}'
    begin, end = uses("recall", '{"number":0}')
    script = {"": [begin.replace("[{", f"[{first},{{", 1), end]}
    result = exact.run(thread, "p", budget=Budget(ticks=999), script=script, recall=True, keep=True, buffer=0)
    assert result.answer == "7"
    assert notes(result, "tool")[0]["status"] == "ok"
    assert "secret" in exact.tokenizer.decode(seen[-1][0].live.view.ids)


# -- runs -------------------------------------------------------------------------------------------------------


def test_a_replay_repeats_and_calls_no_tool(engine: Engine, tmp_path: Any) -> None:
    calls = []

    def once(a: int) -> int:
        """counts"""
        calls.append(a)
        return len(calls)

    script, path = {"": uses("once", '{"a":1}')}, tmp_path / "trace.jsonl"
    first = engine.run(thread, "p", budget=Budget(ticks=999), tools=[once], script=script, trace=path)
    again = engine.run(thread, "p", budget=Budget(ticks=999), tools=[once], script=script, replay=read(path))
    assert (again.answer, again.differences, calls) == (first.answer, [], [1])
    assert notes(again, "thread") == notes(first, "thread")


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Sure! Here it is:", "malformed"),
        ('{"reasoning":[{"thought":"x","oops":', "malformed"),
        ('{"reasoning":[{"thought":"x", "conclusion":"y"}],"answer":"5', "malformed"),
        (DOCUMENT, "done"),
    ],
)
def test_broken_documents_end_in_a_forced_answer(engine: Engine, text: str, outcome: str) -> None:
    result = engine.run(thread, "p", budget=Budget(ticks=999), script={"": [text]}, final_tokens=4)
    assert notes(result, "thread")[0]["outcome"] == outcome
    assert result.outcome == ("answered" if outcome == "done" else "forced")


@pytest.mark.parametrize("ticks", [1, 40, 120])
@pytest.mark.parametrize("siblings", ["serial", "forks"])
def test_budgets_hold_wherever_they_end(engine: Engine, ticks: int, siblings: str) -> None:
    script = {"": [DOCUMENT]}
    if siblings == "forks":
        script = {
            "": ['{"reasoning":[{"thought":"p","plan":["x","y"]', ',"conclusion":"both"}],"answer":"9"}'],
            "x": ['"thought":"first of them, a long one, with many words","conclusion":"1"}'],
            "y": ['"thought":"2nd","conclusion":"2"}'],
        }
    result = engine.run(thread, "p", budget=Budget(ticks=ticks), siblings=siblings, script=script, final_tokens=5)
    assert result.ledger.ticks <= ticks + 5
    assert notes(result, "thread")[0]["outcome"] in ("spent", "done")


def test_without_grammar_a_model_that_talks_ends_typed(engine: Engine) -> None:
    result = engine.run(thread, "p", grammar=False, sampling=Sampling(temperature=1.0), final_tokens=3)
    assert notes(result, "thread")[0]["outcome"] == "malformed"
    assert result.outcome in ("forced", "none")


def test_wrong_parameters_say_what_is_known(engine: Engine) -> None:
    for options, error in (({"mode": "x"}, UnknownName), ({"trigger": "x"}, UnknownName), ({"buffer": -1}, BadRequest)):
        with pytest.raises(error):
            engine.run(thread, "p", **options)
