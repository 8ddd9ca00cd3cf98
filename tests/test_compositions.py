"""Compositions: a Hogwild! team that prunes its own history, a thread of live siblings, a tree whose leaves are relays.

What each row sees is kept a second time, by hand, as lists of tokens from the rules in the documentation; the dense
oracle judges every row's logits by that account, not by the program's views. Workers are scripted.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import toy_engine
from kvorum import Budget, Engine, Result, Run, Worker, programs
from kvorum.engine.row import CheckedRow
from kvorum.engine.tick_result import TickResult
from kvorum.errors import BadRequest, UnknownName
from kvorum.programs.tree.branch import Branch
from kvorum.programs.tree.grow import Growth
from kvorum.store.events import Event, note_data
from oracle import Items, Oracle, widen


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(widen(toy_engine.model()), toy_engine.tokenizer(), kv_tokens=16384, page_size=4)


def notes(events: Sequence[Event], kind: str) -> list[dict[str, Any]]:
    """What the notes of one kind tell."""
    return [note_data(event) for event in events if event["event"] == "note" and event["kind"] == kind]


class Judge:
    """Ticks of an engine, told to the oracle with what ``sees(name of the own block)`` says each row must see."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, sees: Callable[[str], Items]) -> None:
        self.oracle = Oracle(engine.model)
        self.found: list[tuple[int, Tensor]] = []
        self.names: list[str] = []
        whole = engine.executor.run

        def tick(rows: Sequence[CheckedRow], hidden: bool = False) -> TickResult:
            own = [row.own.name for row in rows]
            told = [
                (sees(name), row.ids if row.embeds is None else row.embeds) for name, row in zip(own, rows, strict=True)
            ]
            new = self.oracle.tick(told)
            result = whole(rows, hidden)
            self.found += [(numbers[-1], line) for numbers, line in zip(new, result.output.logits, strict=True)]
            self.names += own
            return result

        monkeypatch.setattr(engine.executor, "run", tick)

    def error(self) -> float:
        logits = self.oracle.solve().logits
        return max(float((logits[number] - line).abs().max()) for number, line in self.found)


def follow(engine: Engine, worker: Worker, text: str) -> None:
    """Let ``worker`` write ``text``, then full stops."""
    ids = engine.tokenizer(text)["input_ids"]
    dot = engine.tokenizer(".")["input_ids"][0]
    written = worker.ids

    def allow(logits: Tensor) -> Tensor:
        mask = torch.zeros(len(logits), dtype=torch.bool)
        mask[ids[len(written)] if len(written) < len(ids) else dot] = True
        return mask

    worker.allow = allow


# -- a Hogwild! team whose workers prune their own history -----------------------------------------------------------

TEXTS = {"Alice": "One.\n\nTwo it is.\n\nThree.\n\nFour", "Bob": "Red is red.\n\nBlue.\n\nGreen!\n\nGrey"}


class History:
    """Whose step stands where, from the names of the blocks that are written to: step 2 begins where step 1 ended."""

    def __init__(self, memory: int | None, forget: str) -> None:
        self.memory, self.forget = memory, forget
        self.past: list[str] = []  # finished steps, oldest first
        self.now: dict[str, str] = {}
        self.judge: Judge | None = None

    def begin(self, names: Sequence[str]) -> None:
        """A tick of these blocks begins; Alice's step moves before Bob's if both end in one tick."""
        for block in names:
            name = block.split(".")[0]
            if name in TEXTS and self.now.get(name, block) != block:
                self.past.append(self.now[name])
            if name in TEXTS:
                self.now[name] = block

    def sees(self, block: str) -> Items:
        name = block.split(".")[0]
        heads = ["history", "others", "own"]
        if name not in TEXTS:
            return [(head, 0, None) for head in heads[: heads.index(block) + 1]]
        items: list[Any] = [("history", 0, None)]
        mine = [step for step in self.past if step.startswith(name)]
        gone = mine[: len(mine) - self.memory] if self.memory is not None else []
        assert self.judge is not None
        for step in self.past:
            if step not in gone:
                items.append((step, 0, None))
            elif self.forget == "gap":
                items.append(len(self.judge.oracle.blocks[step]))
        other = next(self.now[other] for other in TEXTS if other != name)
        return [*items, ("others", 0, None), (other, 0, None), ("own", 0, None), (block, 0, None)]


def team(engine: Engine, monkeypatch: pytest.MonkeyPatch, account: History, **options: Any) -> tuple[Result, Run]:
    whole, held = engine.executor.run, []

    def tick(rows: Sequence[CheckedRow], hidden: bool = False) -> TickResult:
        account.begin([row.own.name for row in rows])
        return judged(rows, hidden)

    account.judge = Judge(engine, monkeypatch, account.sees)
    judged = engine.executor.run
    monkeypatch.setattr(engine.executor, "run", tick)

    def control(run: Run) -> None:
        held.append(run)
        for worker in run.workers:
            follow(engine, worker, TEXTS[worker.name])

    given = {"openings": False, "suppress_markup": False, "final_tokens": 2, **options}
    result = engine.run(programs.hogwild, "Count.", workers=2, budget=Budget(decoded=64), control=control, **given)
    monkeypatch.setattr(engine.executor, "run", whole)
    return result, held[0]


@pytest.mark.parametrize("forget", ["splice", "gap"])
@pytest.mark.parametrize("memory", [None, 0, 1])
def test_workers_forget_their_own_steps(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, memory: int | None, forget: str
) -> None:
    account = History(memory, forget)
    judge_rows = 0

    def stop(run: Run) -> None:
        nonlocal judge_rows
        assert account.judge is not None
        judge_rows = len(account.judge.found)

    force = Run.force

    def ended(run: Run) -> None:  # what is forced afterwards has a test of its own
        stop(run)
        force(run)

    monkeypatch.setattr(Run, "force", ended)
    team(engine, monkeypatch, account, memory=memory, forget=forget)
    judge = account.judge
    assert judge is not None
    assert len([step for step in account.past if step.startswith("Alice")]) == 3
    judge.found = judge.found[:judge_rows]
    assert judge.error() < 1e-9
    if memory != 0:
        return
    other = History(memory, "gap" if forget == "splice" else "splice")  # the other edit is another computation
    team(engine, monkeypatch, other, memory=memory, forget=forget)
    assert other.judge is not None
    assert other.judge.error() > 1e-4


@pytest.mark.parametrize("forget", ["splice", "gap"])
def test_a_forced_answer_undoes_all_forgetting(engine: Engine, monkeypatch: pytest.MonkeyPatch, forget: str) -> None:
    account = History(0, forget)
    force = Run.force

    def ended(run: Run) -> None:
        account.memory = None
        force(run)

    monkeypatch.setattr(Run, "force", ended)
    result, run = team(engine, monkeypatch, account, memory=0, forget=forget)
    assert result.outcome == "forced"
    assert account.judge is not None
    assert account.judge.error() < 1e-9
    history = run.workers[1].view.items[0]
    assert len(history) == len(history.block)  # type: ignore[union-attr]


def test_what_cannot_be_forgotten_is_refused(engine: Engine) -> None:
    for options in ({"memory": -1}, {"memory": 1, "layout": "contiguous"}):
        with pytest.raises(BadRequest, match="memory"):
            engine.run(programs.hogwild, "Count.", **options)
    with pytest.raises(UnknownName, match="splice, gap"):
        engine.run(programs.hogwild, "Count.", memory=1, forget="reencode")


# -- a thread whose siblings are a live team --------------------------------------------------------------------------

INNER = '"thought":"f","subtasks":[{"thought":"a","conclusion":"1"}],"conclusion":"one"}'
SCRIPT = {
    "": ['{"reasoning":[{"thought":"p","plan":["x","y","z"]', ',"conclusion":"both"}],"answer":"9"}'],
    "x": [INNER],
    "y": ['"thought":"the second goes on for longer","conclusion":"two or three words"}'],
    "z": ['"thought":"3","conclusion":"3"}'],
}
CHILDREN = {"Alice.1": "x", "Alice.2": "y", "Alice.3": "z"}


class Siblings:
    """A child's row sees the document before the fork, its siblings, itself; all without what was pruned."""

    def __init__(self, mode: str, live: bool) -> None:
        self.mode, self.live = mode, live
        self.run: Run | None = None
        self.forked = False

    def cuts(self, name: str) -> list[tuple[int, int]]:
        assert self.run is not None
        found: list[dict[str, Any]] = notes(self.run.trace.events, "prune")
        return [(note["lo"], note["hi"]) for note in found if note["worker"] == name]

    def document(self, name: str) -> list[Any]:
        items: list[Any] = []
        at = 0
        for lo, hi in self.cuts(name):
            items += [(name, at, lo)] + [hi - lo] * (self.mode == "gap")
            at = hi
        return [*items, (name, at, None)]

    def sees(self, block: str) -> Items:
        before: list[Any] = [("prompt", 0, None)]
        if block == "prompt":
            return before
        before.append(("Alice", 0, None))
        if block == "Alice":
            if not self.forked:
                return before
            joined = [part for name in CHILDREN for part in self.document(name)]
            if cuts := self.cuts("Alice"):  # the list that the siblings were is pruned as soon as it is closed
                joined = [hi - lo for lo, hi in cuts if self.mode == "gap"]
            return [*before, *joined, ("Alice, later", 0, None)]
        self.forked = True
        others = [part for name in CHILDREN if name != block and self.live for part in self.document(name)]
        return [*before, *others, *self.document(block)]


def siblings(engine: Engine, monkeypatch: pytest.MonkeyPatch, account: Siblings, kind: str) -> tuple[Result, Judge]:
    whole = engine.executor.run
    monkeypatch.setattr(importlib.import_module("kvorum.programs.thread.thread"), "instructions", lambda rules: "")
    judge = Judge(engine, monkeypatch, account.sees)

    def control(run: Run) -> None:
        account.run = run

    result = engine.run(
        programs.thread,
        "p",
        budget=Budget(ticks=999),
        siblings=kind,
        buffer=0,
        mode=account.mode,
        trigger="list",
        script=SCRIPT,
        control=control,
    )
    monkeypatch.setattr(engine.executor, "run", whole)
    return result, judge


@pytest.mark.parametrize("mode", ["splice", "gap", "none"])
@pytest.mark.parametrize("kind", ["live", "forks"])
def test_siblings_see_each_other_while_they_write(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: str, mode: str
) -> None:
    result, judge = siblings(engine, monkeypatch, Siblings(mode, kind == "live"), kind)
    assert result.answer == "9"
    pruned = [note["worker"] for note in notes(result.trace.events, "prune")]
    assert ("Alice.1" in pruned) == (mode != "none")
    assert judge.error() < 1e-9


def test_a_live_team_is_not_a_fork(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account of one is far from the other: what the test above holds could fail."""
    _, judge = siblings(engine, monkeypatch, Siblings("none", False), "live")
    assert judge.error() > 1e-4


@pytest.mark.parametrize("ticks", [3, 40, 60, 90])
@pytest.mark.parametrize("mode", ["reencode", "gap"])
def test_live_siblings_hold_their_budget(engine: Engine, ticks: int, mode: str) -> None:
    result = engine.run(
        programs.thread,
        "p",
        budget=Budget(ticks=ticks),
        siblings="live",
        buffer=0,
        mode=mode,
        script=SCRIPT,
        final_tokens=4,
    )
    assert result.outcome in (("answered", "forced", "cut") if ticks > 3 else ("none",))
    assert result.ledger.ticks <= ticks


# -- a program inside another's view ----------------------------------------------------------------------------------


class Nested:
    """A leaf's relay sees the prompt, the leaf's path, the planner, itself. Paths are cut by hand, token by token."""

    def __init__(self, paths: bool = True) -> None:
        self.paths = paths
        self.judge: Judge | None = None
        self.forks: dict[str, tuple[str | None, int]] = {}  # branch: whose path it keeps, and how much of it

    def path(self, branch: str) -> list[Any]:
        assert self.judge is not None
        parent, kept = self.forks[branch]
        items: list[Any] = []
        for block, lo, hi in [("prompt", 0, None)] if parent is None else self.path(parent):
            size = min(kept, (len(self.judge.oracle.blocks[block]) if hi is None else hi) - lo)
            items += [(block, lo, lo + size)] if size else []
            kept -= size
        assert kept == 0
        return [*items, (branch, 0, None)]

    def sees(self, block: str) -> Items:
        if block == "prompt":
            return [("prompt", 0, None)]
        if "/" not in block:
            return self.path(block)
        branch, worker = block.split("/")
        seen = self.path(branch) if self.paths else []
        return [*seen, (f"{branch}/Alice", 0, None), *([(block, 0, None)] if worker == "Bob" else [])]


@pytest.mark.parametrize("paths", [True, False])
def test_a_tree_whose_leaves_are_relays(engine: Engine, monkeypatch: pytest.MonkeyPatch, paths: bool) -> None:
    """Latent steps and words behind every leaf; an account that forgets the leaf's path is far off."""
    account = Nested(paths)
    account.judge = Judge(engine, monkeypatch, account.sees)
    grow = Growth._branch

    def branched(g: Growth, parent: Branch | None, tree: int, at: int) -> Branch:
        made = grow(g, parent, tree, at)
        account.forks[made.worker.name] = (parent.worker.name if parent else None, at - 1)
        return made

    monkeypatch.setattr(Growth, "_branch", branched)
    relay = {"workers": 2, "latent_steps": 2, "final_tokens": 3}
    options: dict[str, Any] = {"script": "ab\n\ncd\n\nef", "leaf": "relay", "leaf_params": relay, "workers": 3}
    result = engine.run(programs.tree, "What is 2+3?", budget=Budget(ticks=150), tokens=40, **options)
    if not paths:
        assert account.judge.error() > 1e-4
        return
    assert account.judge.error() < 1e-9
    nested = notes(result.trace.events, "inside")
    assert len([note for note in nested if note.get("outcome", "none") != "none"]) == 3  # the budget ends here
    assert result.ledger.latent == 6
    (grown,) = notes(result.trace.events, "tree")
    assert grown["leaves"] == 6
    shown = [e for e in result.trace.events if e["event"] == "view" and e["worker"].endswith("/Bob")]
    assert shown
    assert all(event["items"][0][0] == "prompt" for event in shown)  # whole views in the trace
